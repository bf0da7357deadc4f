/** The dialogs of the page: what can be done to VMs and disks. */

import { showCommandLine } from './commandline.js';
import { showDialog } from './dialog.js';
import { bytes, plural, shortNqn } from './format.js';
import * as operations from './operations.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {import('./vms.js').Vm} Vm
 * @typedef {import('../../target/snapshot.ts').BdevSnapshot} Bdev
 * @typedef {import('./dialog.js').Values} Values
 */

const SOCKET_HINT = 'A folder; made if it is not there. The VM’s socket in it is called cntrl.';

export class Actions {
  /** What the target can do. @type {ReadonlySet<string>} */
  #methods = new Set();
  #model;

  /** @param {Model} model */
  constructor(model) {
    this.#model = model;
  }

  /** Asks the target what it can do; to be called for each new one. */
  async learn() {
    // If the connection fails just now, the next one asks again.
    this.#methods = await operations.methods().catch(() => new Set());
  }

  get canLimit() {
    return this.#methods.has('bdev_set_qos_limit');
  }

  /** @param {Bdev} bdev */
  canResize({ module }) {
    return ['null', 'aio', 'uring'].includes(module);
  }

  /** Disks that nobody uses. */
  #free() {
    return (this.#model.snapshot?.bdevs ?? [])
      .filter(({ claimedBy }) => claimedBy === undefined)
      .map(({ name, numBlocks, blockSize }) => ({
        value: name,
        label: `${name}, ${bytes(numBlocks * blockSize)}`,
      }));
  }

  newDisk() {
    const vms = (this.#model.snapshot?.subsystems ?? []).map(({ nqn }) => ({
      value: nqn,
      label: shortNqn(nqn),
    }));
    /** @param {Values} values */
    const isFile = ({ kind }) => kind === 'file' || kind === 'new-file';
    return showDialog({
      title: 'New disk',
      submit: 'Create disk',
      fields: [
        {
          name: 'kind',
          label: 'Kind',
          type: 'select',
          options: [
            { value: 'new-file', label: 'New file, which takes space as it is written' },
            { value: 'file', label: 'File or block device that is there' },
            { value: 'malloc', label: 'RAM: gone when the target stops' },
            { value: 'null', label: 'Null: discards writes, for measuring' },
          ],
        },
        { name: 'name', label: 'Name', placeholder: 'disk0', keys: ['name'] },
        {
          name: 'filename',
          label: 'Path',
          placeholder: '/srv/disk0.img',
          keys: ['filename'],
          when: isFile,
        },
        {
          name: 'size',
          label: 'Size',
          placeholder: '20G',
          hint: 'with a unit: 512M, 20G, 1.5T',
          keys: ['size', 'num_blocks'],
          when: ({ kind }) => kind !== 'file',
        },
        {
          name: 'blockSize',
          label: 'Block size',
          type: 'select',
          optional: true,
          options: [
            { value: '', label: '512 bytes, or what the device has' },
            { value: '512', label: '512 bytes' },
            { value: '4096', label: '4096 bytes' },
          ],
          keys: ['block_size'],
        },
        {
          name: 'readonly',
          label: 'Write protected',
          type: 'checkbox',
          when: ({ kind }) => kind === 'file',
        },
        {
          name: 'direct',
          label: 'Past the page cache (O_DIRECT)',
          type: 'checkbox',
          when: isFile,
          keys: ['direct'],
        },
        {
          name: 'nqn',
          label: 'Add it to',
          type: 'select',
          options: [{ value: '', label: 'no VM yet' }, ...vms],
          optional: true,
        },
      ],
      run: async (values) => {
        await operations.createDisk({
          kind: /** @type {'file'} */ (values.kind),
          name: values.name,
          filename: values.filename,
          size: values.size,
          blockSize: values.blockSize === '' ? undefined : Number(values.blockSize),
          readonly: values.kind === 'file' && values.readonly === 'on',
          direct: isFile(values) && values.direct === 'on',
          nqn: values.nqn === '' ? undefined : values.nqn,
        });
      },
    });
  }

  async newVm() {
    /** @type {{ nqn: string, socket: string } | undefined} */
    let made;
    await showDialog({
      title: 'New VM',
      text: 'An NVMe subsystem with a socket. What connects to the socket sees its disks behind one controller.',
      submit: 'Create VM',
      fields: [
        {
          name: 'name',
          label: 'Name',
          placeholder: 'vm0',
          hint: 'a short name, or a whole NQN',
          keys: ['nqn'],
        },
        {
          name: 'folder',
          label: 'Folder of the socket',
          placeholder: '/run/vm0',
          hint: SOCKET_HINT,
          keys: ['listen_address.traddr', 'folder'],
        },
        {
          name: 'bdevs',
          label: 'Disks',
          type: 'boxes',
          options: this.#free(),
          empty: 'No disk is free. One can be added later.',
          keys: ['namespace.bdev_name'],
        },
      ],
      run: async ({ name, folder, bdevs }) => {
        made = await operations.createVm({ name, folder, bdevs: JSON.parse(bdevs) });
      },
    });
    if (made !== undefined) showCommandLine(shortNqn(made.nqn), made.socket);
  }

  /** @param {Vm} vm */
  commandLine({ subsystem, listener }) {
    if (listener !== undefined) showCommandLine(shortNqn(subsystem.nqn), listener.socket);
  }

  /** @param {Vm} vm */
  addNamespace({ subsystem: { nqn } }) {
    const options = this.#free();
    return showDialog({
      title: `Add a disk to ${shortNqn(nqn)}`,
      text:
        options.length === 0 ? 'No disk is free: create one first.' : 'The guest sees it at once.',
      submit: 'Add disk',
      fields: [
        {
          name: 'bdev',
          label: 'Disk',
          type: 'select',
          options,
          keys: ['namespace.bdev_name'],
        },
        {
          name: 'nsid',
          label: 'Namespace ID',
          type: 'number',
          optional: true,
          hint: 'default: the smallest that is free',
          keys: ['namespace.nsid'],
        },
      ],
      run: ({ bdev, nsid }) =>
        operations.addNamespace(
          nqn,
          bdev,
          nsid === '' ? undefined : wholeNumber('Namespace ID', nsid),
        ),
    });
  }

  /** @param {Vm} vm @param {number} nsid @param {string} bdev */
  removeNamespace({ subsystem: { nqn } }, nsid, bdev) {
    return showDialog({
      title: `Remove ${bdev} from ${shortNqn(nqn)}`,
      text: `Namespace ${nsid} goes away under the guest, like a disk that is pulled out. The disk and its data stay.`,
      submit: 'Remove',
      danger: true,
      confirm: bdev,
      run: () => operations.removeNamespace(nqn, nsid),
    });
  }

  /** @param {Vm} vm */
  addSocket({ subsystem: { nqn } }) {
    return showDialog({
      title: `Add a socket to ${shortNqn(nqn)}`,
      text: 'Another VM can connect there and shares the disks: they need a file system made for that.',
      submit: 'Add socket',
      fields: [
        {
          name: 'folder',
          label: 'Folder of the socket',
          placeholder: '/run/vm0',
          hint: SOCKET_HINT,
          keys: ['listen_address.traddr', 'folder'],
        },
      ],
      run: ({ folder }) => operations.addSocket(nqn, folder),
    });
  }

  /** @param {Vm} vm */
  async removeSocket({ subsystem: { nqn }, listener }) {
    if (listener === undefined) return;
    await showDialog({
      title: `Remove a socket of ${shortNqn(nqn)}`,
      text: `${listener.socket} goes away, and who is connected to it loses the disks.`,
      submit: 'Remove socket',
      danger: true,
      confirm: shortNqn(nqn),
      run: () => operations.removeSocket(nqn, listener.socket),
    });
  }

  /** @param {Vm} vm */
  deleteVm({ subsystem: { nqn, listeners, namespaces } }) {
    const connected = listeners.filter(({ controller }) => controller !== undefined).length;
    const now =
      connected === 0
        ? 'Nobody is connected now.'
        : `${plural(connected, 'VM')} connected now loses its disks.`;
    return showDialog({
      title: `Delete ${shortNqn(nqn)}`,
      text: `Its ${plural(listeners.length, 'socket')} and ${plural(namespaces.length, 'namespace')} go away. ${now} The disks and their data stay.`,
      submit: 'Delete VM',
      danger: true,
      confirm: shortNqn(nqn),
      run: () => operations.deleteVm(nqn),
    });
  }

  /** @param {Bdev} bdev */
  deleteDisk(bdev) {
    const user =
      bdev.claimedBy === undefined ? '' : ` It is taken from ${shortNqn(bdev.claimedBy)} first.`;
    const data =
      bdev.module === 'malloc'
        ? 'What is in it is lost.'
        : bdev.module === 'null'
          ? ''
          : 'The file and its data stay.';
    return showDialog({
      title: `Delete disk ${bdev.name}`,
      text: `The target forgets the disk.${user} ${data}`,
      submit: 'Delete disk',
      danger: true,
      confirm: bdev.name,
      run: () => operations.deleteDisk(bdev),
    });
  }

  /** @param {Bdev} bdev */
  async resize(bdev) {
    const now = bytes(bdev.numBlocks * bdev.blockSize);
    if (bdev.module === 'null') {
      return showDialog({
        title: `Resize ${bdev.name}`,
        text: `It has ${now}. Guests that use it are told.`,
        submit: 'Resize',
        fields: [{ name: 'size', label: 'New size', placeholder: '20G', keys: ['new_size'] }],
        run: ({ size }) => operations.resizeNull(bdev.name, size),
      });
    }
    return showDialog({
      title: `Resize ${bdev.name}`,
      text: `It has ${now}. Change the size of its file first (truncate -s 40G FILE), or of its block device. Then its guests are told.`,
      submit: 'Take over the size',
      run: () => operations.rescan(bdev),
    });
  }

  /** @param {Bdev} bdev */
  async limits({ name }) {
    /** @type {import('./operations.js').Limits | undefined} */
    const limits = await operations
      .describeDisk(name)
      .then((disk) => disk.limits)
      .catch(() => undefined);
    const NAMES = /** @type {const} */ ([
      ['rw_ios_per_sec', 'IOPS', 'in whole thousands'],
      ['rw_mbytes_per_sec', 'Throughput, MiB/s', ''],
      ['r_mbytes_per_sec', 'of reads, MiB/s', ''],
      ['w_mbytes_per_sec', 'of writes, MiB/s', ''],
    ]);
    return showDialog({
      title: `Limits of ${name}`,
      text: 'What all guests together may do with it. Empty or 0: no limit.',
      submit: 'Set limits',
      fields: NAMES.map(([key, label, hint]) => ({
        name: key,
        label,
        hint,
        type: 'number',
        optional: true,
        value: String(limits?.[key] || ''),
        keys: [key],
      })),
      run: (values) =>
        operations.setLimits(
          name,
          /** @type {import('./operations.js').Limits} */ (
            Object.fromEntries(
              NAMES.map(([key, label]) => [key, wholeNumber(label, values[key] || '0')]),
            )
          ),
        ),
    });
  }
}

/** @param {string} label @param {string} text */
function wholeNumber(label, text) {
  if (!/^\d{1,15}$/.test(text)) throw new Error(`${label} is a whole number, not ${text}`);
  return Number(text);
}
