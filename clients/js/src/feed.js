/**
 * Items for one `for await`. Those that are not taken yet wait.
 *
 * @template T
 * @implements {AsyncIterableIterator<T>}
 */
export class Feed {
  /** @type {T[]} */
  #items = [];
  /** @type {((result: IteratorResult<T>) => void)[]} */
  #takers = []; // there are some only while there is no item
  #isOver = false;
  #left;

  /** @param {() => void} left is called when nobody takes items any more */
  constructor(left) {
    this.#left = left;
  }

  /** @param {T} item */
  add(item) {
    const taker = this.#takers.shift();
    if (taker) taker({ value: item, done: false });
    else this.#items.push(item);
  }

  /** There are no more items than those that wait. */
  end() {
    this.#isOver = true;
    for (const taker of this.#takers.splice(0)) taker({ value: undefined, done: true });
  }

  /** @returns {Promise<IteratorResult<T>>} */
  async next() {
    if (this.#items.length) return { value: /** @type {T} */ (this.#items.shift()), done: false };
    if (this.#isOver) return { value: undefined, done: true };
    return new Promise((resolve) => this.#takers.push(resolve));
  }

  /** @returns {Promise<IteratorResult<T>>} */
  async return() {
    this.#items = [];
    this.end();
    this.#left();
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator]() {
    return this;
  }
}
