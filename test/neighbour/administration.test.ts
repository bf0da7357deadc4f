/** What is done about a disk that hangs waits for it at most where it is about it. */
import { testTroubles } from '../helpers/neighbour/run.ts';
import { FAMILIES } from '../helpers/troubles/index.ts';

testTroubles(FAMILIES.administration);
