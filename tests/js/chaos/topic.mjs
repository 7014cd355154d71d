// One topic or session as an application follows it: what it has heard, and whether all of it.
import { Book } from "../kit/book.mjs";

const KEPT_ID = {
  TRADES: (data) => data.trades[0].id,
  ORDER_UPDATES: (data) => data.order_id,
  USER_DATA: (data) => data.id,
  RISK_ALERTS: (data) => data.message,
};

// What is said of a topic, in the words of `/market` or of `/session`.
class Followed {
  // What should not be; the application collects it.
  faults = [];
  // Whether the last request for it was answered; until then what comes is not for us.
  live = false;
  position = null;

  constructor(name) {
    this.name = name;
  }

  fault(what, detail) {
    this.faults.push(`${this.name}: ${what} ${JSON.stringify(detail)}`);
  }

  get since() {
    return this.position ?? undefined;
  }

  begin({ epoch, seq }) {
    if (this.position !== null && this.position.epoch !== epoch) this.fault("another epoch", epoch);
    if (this.position !== null && this.position.seq > seq) this.fault("went back to", seq);
    this.position = { epoch, seq };
    this.live = true;
  }

  follows(prev, epoch, type) {
    if (this.position.epoch === epoch && this.position.seq === prev) return true;
    this.fault("does not follow", { at: this.position, prev, epoch, type });
    return false;
  }
}

export class Kept extends Followed {
  heard = [];

  constructor(name, idOf = KEPT_ID[name.split(":")[0]]) {
    super(name);
    this.idOf = idOf;
  }

  answered({ epoch, seq, recovered, missed }) {
    if (this.position !== null) {
      if (!recovered) this.fault("not recovered from", this.position);
      for (const message of missed) this.take(message);
      if (this.position.seq !== seq) this.fault("the answer ends elsewhere", { at: this.position, seq });
    }
    this.begin({ epoch, seq });
  }

  hear(message) {
    if (!this.live) return;
    if (message.type === "heartbeat") this.follows(message.seq, message.epoch);
    else if (message.type === "snapshot") this.fault("told of a gap", message);
    else this.take(message);
  }

  take({ epoch, seq, prev = seq - 1, data }) {
    if (seq !== prev + 1) this.fault("skips", { prev, seq });
    this.follows(prev, epoch);
    this.position = { epoch, seq };
    this.heard.push([seq, this.idOf(data)]);
  }

  report() {
    return { position: this.position, heard: this.heard };
  }
}

export class Merged extends Followed {
  book = this.name.startsWith("ORDERBOOK") ? new Book() : null;
  data = null;

  answered({ epoch, seq, snapshot, recovered }) {
    if (snapshot !== null) this.keep(snapshot);
    else if (this.position !== null && !(recovered && this.position.seq === seq)) {
      this.fault("neither a snapshot nor nothing new", { at: this.position, seq });
    }
    this.begin({ epoch, seq });
  }

  hear(message) {
    if (!this.live) return;
    this.follows(message.prev, message.epoch, message.type);
    this.position = { epoch: message.epoch, seq: message.seq };
    if (message.type !== "heartbeat") this.keep(message);
  }

  keep(message) {
    this.data = message.data;
    try {
      this.book?.take(message);
    } catch (error) {
      this.fault("checksum", error.message);
    }
  }

  report() {
    const book = this.book && { bids: Object.fromEntries(this.book.bids), asks: Object.fromEntries(this.book.asks) };
    return { position: this.position, data: this.data, book };
  }
}
