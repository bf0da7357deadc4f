/** What a VMM does with descriptors, memory and its socket harms its own VM only. */
import { testTroubles } from '../helpers/neighbour/run.ts';
import { FAMILIES } from '../helpers/troubles/index.ts';

testTroubles(FAMILIES.vmm);
