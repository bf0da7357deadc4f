/** What a trouble is: something hostile or broken beside the neighbour, in three acts. */
import type { Scene } from './scene.ts';

export interface Trouble {
  readonly name: string;
  /** Why it cannot be had here; false if it can. */
  readonly needs?: string | false;
  /** Played by `npm run test:neighbour` only, and not by `npm test`. */
  readonly onlyInFull?: true;
  /** Resolves when the trouble is there. What it makes it makes through the scene, which takes it away again. */
  establish(scene: Scene): Promise<Held>;
}

/** A trouble that is there. */
export interface Held {
  /** Called again and again while the neighbour is watched: makes more of it, and throws if it is over. */
  held(): Promise<void>;
  /** Ends it: what waits goes on. Called after what it concerns was removed by JSON-RPC. */
  release(): Promise<void>;
}

/** Of a trouble that goes on by itself, or is over once it was made. */
export const lasting: Held = { held: async () => {}, release: async () => {} };

/** The same, left to `npm run test:neighbour`. */
export const onlyInFull = (trouble: Trouble): Trouble => ({ ...trouble, onlyInFull: true });
