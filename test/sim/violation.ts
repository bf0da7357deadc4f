/** A rule of the simulation was broken: the product has a fault, or the simulation. */
export class Violation extends Error {
  override readonly name = 'Violation';
  /** The first one: the product may catch what it throws. */
  static first: Violation | undefined;

  constructor(message: string) {
    super(message);
    Violation.first ??= this;
  }

  /** Throws the first one, if there is one. */
  static check(): void {
    if (Violation.first !== undefined) {
      throw Violation.first;
    }
  }
}
