/** Disks that hang, fail, are slow or full are trouble of their own VM only. */
import { testTroubles } from '../helpers/neighbour/run.ts';
import { FAMILIES } from '../helpers/troubles/index.ts';

testTroubles(FAMILIES.disks);
