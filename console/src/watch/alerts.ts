/** Levels that a price must cross to be reported, kept in this browser. */
import { preference } from "../kit/preferences.js";

export class Alerts {
  readonly #levels = preference<Record<string, readonly string[]>>("alerts", {});
  readonly #stale = preference("alert-stale", true);

  /** Report each symbol that turns stale, too. */
  get reportsStale(): boolean {
    return this.#stale.get();
  }

  set reportsStale(reports: boolean) {
    this.#stale.set(reports);
  }

  has(symbol: string): boolean {
    return this.of(symbol).length > 0;
  }

  /** The levels of a symbol, the highest first. */
  of(symbol: string): readonly string[] {
    return this.#levels.get()[symbol] ?? [];
  }

  add(symbol: string, level: string): void {
    const levels = new Set([...this.of(symbol), level]);
    this.#set(symbol, [...levels].sort((a, b) => Number(b) - Number(a)));
  }

  remove(symbol: string, level: string): void {
    this.#set(symbol, this.of(symbol).filter((each) => each !== level));
  }

  /** The levels that a move has reached or crossed: each is reported once. */
  crossed(symbol: string, before: number, after: number): readonly string[] {
    const levels = this.#levels.get()[symbol];
    if (levels === undefined || before === after) {
      return [];
    }
    const reached = levels.filter((each) => {
      const level = Number(each);
      return before < level ? after >= level : before > level && after <= level;
    });
    reached.forEach((level) => this.remove(symbol, level));
    return reached;
  }

  #set(symbol: string, levels: readonly string[]): void {
    const { [symbol]: _, ...others } = this.#levels.get();
    this.#levels.set(levels.length === 0 ? others : { ...others, [symbol]: levels });
  }
}
