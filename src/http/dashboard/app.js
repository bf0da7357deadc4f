/**
 * The dashboard: puts the parts together. Snapshots go into the model as they come; the page is drawn once for each, and not at all while
 * nobody sees it.
 */

import { Actions } from './actions.js';
import { AlertList } from './alertlist.js';
import { showDialog } from './dialog.js';
import { Disks } from './disks.js';
import { byId, setAttribute, setText } from './dom.js';
import { EventList } from './eventlist.js';
import { clock, duration } from './format.js';
import { Model } from './model.js';
import { Overview } from './overview.js';
import { Reactors } from './reactors.js';
import { call, login, logout, session } from './rpc.js';
import { Stream } from './stream.js';
import { Tiles } from './tiles.js';
import { Vms } from './vms.js';

export const model = new Model();
const actions = new Actions(model);
const overview = new Overview({
  charts: byId('charts'),
  scope: /** @type {HTMLSelectElement} */ (byId('scope')),
  range: byId('range'),
  model,
});
const views = [
  new AlertList(byId('alerts')),
  new Tiles(byId('tiles')),
  overview,
  new Vms(byId('vms'), actions),
  new Disks(byId('disks'), actions),
  new Reactors(byId('reactors')),
  new EventList(byId('events')),
];

const STATES = { connecting: 'connecting', live: 'live', lost: 'no connection', login: 'locked' };

let due = false;

/** Draws the page at the browser's next frame: never while the page is hidden. */
function draw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    if (document.hidden) return;
    const { snapshot, connection } = model;
    setText(byId('connection'), STATES[connection]);
    setAttribute(byId('connection'), 'data-state', connection);
    setAttribute(document.body, 'data-stale', connection !== 'live');
    if (snapshot !== undefined) {
      setText(byId('version'), `${snapshot.version} · up ${duration(snapshot.uptimeSeconds)}`);
      setAttribute(
        byId('version'),
        'title',
        `process ${snapshot.pid}, at ${clock(new Date(snapshot.time))}`,
      );
    }
    for (const view of views) view.show(model);
  });
}

const stream = new Stream({
  snapshot(snapshot) {
    const first = model.snapshot === undefined;
    const restarted = model.accept(snapshot);
    if (first || restarted) void actions.learn().then(draw);
    if (restarted) void fetchEvents();
    draw();
  },
  event(event) {
    model.addEvent(event);
    draw();
  },
  state(state) {
    model.setConnection(state);
    if (state === 'login') void askToken();
    draw();
  },
});

/** Those of a target that has just started, some of which came before it was known to be another. */
async function fetchEvents() {
  stream.forgetEvents();
  try {
    for (const event of await call('doorbell_get_events')) model.addEvent(event);
    draw();
  } catch {
    // The next connection brings them.
  }
}

async function askToken() {
  const done = await showDialog({
    title: 'Log in',
    text: 'This target asks for a token: the one in the file that it was started with (--http-token-file).',
    submit: 'Log in',
    fields: [{ name: 'token', label: 'Token', type: 'password' }],
    run: ({ token }) => login(token),
  });
  if (done) {
    byId('logout').hidden = false;
    stream.reopen();
  } else if (model.connection === 'login') {
    // There is nothing to see without.
    void askToken();
  }
}

byId('new-disk').addEventListener('click', () => void actions.newDisk());
byId('new-vm').addEventListener('click', () => void actions.newVm());
byId('logout').addEventListener('click', async () => {
  await logout();
  location.reload();
});
document.addEventListener('visibilitychange', draw);
/** A token in the address (`#token=…`, which no server sees) logs in, and leaves the address. */
async function loginByAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (token === null) return;
  history.replaceState(null, '', location.pathname);
  // If it is wrong, the page asks for another.
  await login(token).catch(() => {});
}

async function begin() {
  draw();
  await loginByAddress();
  stream.start();
  // Without a connection, the stream says so.
  const { tokenNeeded, open } = await session().catch(() => ({ tokenNeeded: false, open: true }));
  byId('logout').hidden = !(tokenNeeded && open);
}

void begin();
