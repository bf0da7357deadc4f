/** `doorbell-nvme`: a target to embed in a program. docs/embedding.md shows it. */

export { ConfigError } from './app/config/problem.ts';
export { createTarget, EmbeddedTarget, type TargetOptions } from './library/target.ts';
export type { DiskOptions, Vm, VmDisk, VmOptions } from './library/vms.ts';
export type { RpcCalls, RpcName, RpcParams, RpcResult } from './rpc/calls.ts';
export { RpcCode, RpcError } from './rpc/protocol.ts';
export type { EventListener, EventType, TargetEvent } from './target/events.ts';
export { FailedError, InvalidError } from './util/errors.ts';
export type { LogFormat, LogLevel } from './util/log.ts';
export type { LogSink } from './util/log-sink.ts';
export { VERSION } from './util/version.ts';
