/** Entry of a reactor's thread: binds it to its processor, joins the loop with its plane, and runs it until main stops it. */
import { native } from '../src/native/index.ts';
import { NvmePlane } from '../src/nvme/plane/plane.ts';
import { inlineAcrossLayers } from '../src/reactor/compiler.ts';
import type { ReactorTask } from '../src/reactor/control.ts';
import { Reactor } from '../src/reactor/loop.ts';
import { realPlatform } from '../src/reactor/platform.ts';

/** One never-ending task of the pool. */
export default function reactor(task: ReactorTask): void {
  if (task.cpu !== undefined) {
    native.setAffinity([task.cpu]);
  }
  native.setThreadName(`reactor_${task.index}`);
  // Timed sleeps end on time instead of up to 50 µs late.
  native.setTimerSlack(1);
  inlineAcrossLayers();
  new Reactor(task, realPlatform(task), (parts) => new NvmePlane(parts)).run();
}
