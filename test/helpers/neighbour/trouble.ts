/** What a trouble is: something hostile or broken beside the neighbour, in three acts. */
import type { Scene } from './scene.ts';

export interface Trouble {
  readonly name: string;
  /** Why it cannot be had here; false if it can. */
  readonly needs?: string | false;
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
