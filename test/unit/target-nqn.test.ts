import t from 'tap';
import { DISCOVERY_NQN, nqnProblem } from '../../src/target/nqn.ts';

const UUID = '0a1b2c3d-4e5f-4001-8203-a4b5c6d7e8f9';

t.test('valid', async (t) => {
  const valid = [
    DISCOVERY_NQN,
    'nqn.2016-06.io.spdk:cnode1',
    'nqn.2016-06.io:x',
    'nqn.2016-06.a-b.c9:any text: even — this',
    `nqn.2014-08.org.nvmexpress:uuid:${UUID}`,
    'nqn.2016-06.io.spdk:'.padEnd(223, 'x'),
    `nqn.2016-06.${'a'.repeat(63)}.io:x`,
  ];
  for (const nqn of valid) {
    t.equal(nqnProblem(nqn), undefined, nqn);
  }
});

t.test('invalid', async (t) => {
  const invalid = [
    '',
    'nqn',
    'iqn.2016-06.io.spdk:x',
    'nqn.2016-6.io.spdk:x',
    'nqn.16-06.io.spdk:x',
    'nqn.2016-06.io.spdk',
    'nqn.2016-06.io.spdk:',
    'nqn.2016-06.:x',
    'nqn.2016-06.io..spdk:x',
    'nqn.2016-06.9io.spdk:x',
    'nqn.2016-06.io-.spdk:x',
    'nqn.2016-06.io.-spdk:x',
    'nqn.2016-06.io_.spdk:x',
    `nqn.2016-06.${'a'.repeat(64)}.io:x`,
    'nqn.2016-06.io.spdk:\ud800',
    'nqn.2016-06.io.spdk:a\0b',
    'nqn.2016-06.io.spdk:'.padEnd(224, 'x'),
    'nqn.2016-06.io.spdk:'.padEnd(222, 'ü'),
    `nqn.2014-08.org.nvmexpress:uuid:${UUID}0`,
    'nqn.2014-08.org.nvmexpress:uuid:x',
  ];
  for (const nqn of invalid) {
    t.type(nqnProblem(nqn), 'string', JSON.stringify(nqn));
  }
});
