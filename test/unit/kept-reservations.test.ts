/** A reservation that is said to be kept is on stable storage, also after a save that failed. */
import t from 'tap';
import { Reservations } from '../../src/nvme/reservations.ts';
import { KeptReservations } from '../../src/target/kept-reservations.ts';

const HOST = 'aa'.repeat(8);

t.test('what a save failed for is saved by the next attempt', async (t) => {
  const kept = new KeptReservations();
  let fails = true;
  let saved = '';
  let saves = 0;
  kept.follow([], async () => {
    saves += 1;
    if (fails) {
      throw new Error('No space left');
    }
    saved = JSON.stringify(kept.list());
  });
  const reservations = new Reservations();
  reservations.restore({ generation: 1, type: 0, holder: undefined, registrants: [[HOST, '01']] });
  reservations.ptpl = true;
  await t.rejects(kept.keep([['a', reservations]]), /No space/);
  await t.rejects(kept.keep([['a', reservations]]), /No space/, 'it is not kept yet');
  fails = false;
  await kept.keep([['a', reservations]]);
  t.match(saved, HOST);
  await kept.keep([['a', reservations]]);
  t.equal(saves, 3, 'what is kept is not written again');
});
