/** A guest, VMM or client that asks for more than its share does not get that of others. */
import { testTroubles } from '../helpers/neighbour/run.ts';
import { FAMILIES } from '../helpers/troubles/index.ts';

testTroubles(FAMILIES.floods);
