/** Names and UUIDs of bdevs: each is one bdev's, from when it begins to be made. Either finds it. */
import { MAX_BDEVS } from '../../limits.ts';
import { ErrnoError, InvalidError } from '../../util/errors.ts';

const MAX_NAME_BYTES = 255;

interface Holder {
  readonly name: string;
  /** In lower case; absent in a configuration that leaves it open. */
  readonly uuid: string | undefined;
  made: boolean;
}

export class BdevNames {
  readonly #byName = new Map<string, Holder>();
  readonly #byUuid = new Map<string, Holder>();
  #mallocCount = 0;

  /** The name of the bdev that has a name or UUID, once it is made. */
  find(nameOrUuid: string): string | undefined {
    const holder = this.#holder(nameOrUuid);
    return holder?.made === true ? holder.name : undefined;
  }

  #holder(nameOrUuid: string): Holder | undefined {
    return this.#byName.get(nameOrUuid) ?? this.#byUuid.get(nameOrUuid.toLowerCase());
  }

  /** Somebody has it, or will have. */
  isHeld(nameOrUuid: string): boolean {
    return this.#holder(nameOrUuid) !== undefined;
  }

  /** For a bdev that is going to be made. Throws InvalidError for a bad name, EEXIST, and ENOSPC if there are too many. */
  hold(name: string, uuid: string | undefined): void {
    if (name === '' || Buffer.byteLength(name) > MAX_NAME_BYTES || /\p{Cc}/u.test(name)) {
      throw new InvalidError(
        `key 'name' must have 1 to ${MAX_NAME_BYTES} bytes, and no control characters`,
      );
    }
    for (const wanted of uuid === undefined ? [name] : [name, uuid]) {
      const other = this.#holder(wanted);
      if (other !== undefined) {
        throw new ErrnoError('EEXIST', describe(other, wanted));
      }
    }
    if (this.#byName.size >= MAX_BDEVS) {
      throw new ErrnoError('ENOSPC', `there are ${MAX_BDEVS} bdevs`);
    }
    const holder = { name, uuid: uuid?.toLowerCase(), made: false };
    this.#byName.set(name, holder);
    if (holder.uuid !== undefined) {
      this.#byUuid.set(holder.uuid, holder);
    }
  }

  /** It is there. */
  made(name: string): void {
    const holder = this.#byName.get(name);
    if (holder !== undefined) {
      holder.made = true;
    }
  }

  /** It could not be made, or is gone. */
  release(name: string): void {
    const holder = this.#byName.get(name);
    this.#byName.delete(name);
    if (holder?.uuid !== undefined) {
      this.#byUuid.delete(holder.uuid);
    }
  }

  /** The next of Malloc0, Malloc1, … that nobody has. */
  nextMalloc(): string {
    let name: string;
    do {
      name = `Malloc${this.#mallocCount++}`;
    } while (this.isHeld(name));
    return name;
  }
}

function describe({ name, made }: Holder, wanted: string): string {
  if (!made) {
    return `bdev '${wanted}' is being made`;
  }
  return name === wanted
    ? `there is a bdev '${name}' already`
    : `there is a bdev '${wanted}' already, named '${name}'`;
}
