// Keeps an order book as docs/protocol.md prescribes.
import assert from "node:assert/strict";

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

function crc32(text) {
  let sum = 0xffffffff;
  for (const byte of Buffer.from(text)) sum = TABLE[(sum ^ byte) & 0xff] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

export class Book {
  bids = new Map();
  asks = new Map();

  take({ type, data }) {
    if (type === "heartbeat") return;
    if (type === "snapshot") {
      this.bids.clear();
      this.asks.clear();
    }
    for (const [side, levels] of [[this.bids, data.bids], [this.asks, data.asks]]) {
      for (const [price, quantity] of levels) {
        if (quantity === "0") side.delete(price);
        else side.set(price, quantity);
      }
    }
    assert.equal(this.checksum(), data.checksum);
  }

  checksum() {
    const bids = [...this.bids].sort((a, b) => b[0] - a[0]).slice(0, 10);
    const asks = [...this.asks].sort((a, b) => a[0] - b[0]).slice(0, 10);
    const words = [];
    for (let rank = 0; rank < 10; rank++) {
      if (rank < bids.length) words.push(...bids[rank]);
      if (rank < asks.length) words.push(...asks[rank]);
    }
    return crc32(words.join(":"));
  }
}
