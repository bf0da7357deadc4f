/** Logs that say what the controller supports: made of what is registered, nothing else. NVMe Base 2.0 §5.16.1.1, .6, .17. Owned by main. */
import {
  EFFECTS_IO_OFFSET,
  EFFECTS_LOG_SIZE,
  Effects,
  FEATURE_EFFECTS_LOG_SIZE,
  FeatureEffects,
  SUPPORTED_LOG_SIZE,
  SupportedLog,
} from '../../spec/logs.ts';
import type { EffectsValues } from '../admin/command.ts';
import type { Feature } from '../features/feature.ts';

/** A dword for each number that is there. */
function table(bytes: number, entries: Iterable<readonly [at: number, dword: number]>): Uint8Array {
  const out = new Uint8Array(bytes);
  const view = new DataView(out.buffer);
  for (const [at, dword] of entries) {
    view.setUint32(at, dword, true);
  }
  return out;
}

/** LID 00h. */
export function supportedLogs(lids: readonly number[]): Uint8Array {
  const supported = SupportedLog.encode({ lsupp: true });
  return table(
    SUPPORTED_LOG_SIZE,
    lids.map((lid) => [4 * lid, supported]),
  );
}

interface Supported {
  readonly opcode: number;
  readonly effects: EffectsValues;
}

/** LID 05h. */
export function commandEffects(admin: readonly Supported[], io: readonly Supported[]): Uint8Array {
  const entry = (from: number, { opcode, effects }: Supported): [number, number] => [
    from + 4 * opcode,
    Effects.encode({ csupp: true, ...effects }),
  ];
  return table(EFFECTS_LOG_SIZE, [
    ...admin.map((command) => entry(0, command)),
    ...io.map((command) => entry(EFFECTS_IO_OFFSET, command)),
  ]);
}

/** LID 12h: which features there are, and whose each is. */
export function featureEffects(features: readonly Feature[]): Uint8Array {
  return table(
    FEATURE_EFFECTS_LOG_SIZE,
    features.map(({ fid, perNamespace = false }) => [
      4 * fid,
      FeatureEffects.encode({ fsupp: true, namespace: perNamespace, controller: !perNamespace }),
    ]),
  );
}
