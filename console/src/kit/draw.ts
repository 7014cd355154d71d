/** Draws what has changed, together and not more often than eyes can follow. */

const MIN_PAUSE_MS = 45;

const due = new Set<() => void>();
let isScheduled = false;
let lastDrawn = -Infinity;

/** Run a task in one of the next frames, once however often it is asked for. */
export function drawSoon(task: () => void): void {
  due.add(task);
  if (!isScheduled) {
    isScheduled = true;
    const wait = lastDrawn + MIN_PAUSE_MS - performance.now();
    if (wait > 0) {
      setTimeout(() => requestAnimationFrame(run), wait);
    } else {
      requestAnimationFrame(run);
    }
  }
}

function run(now: number): void {
  isScheduled = false;
  lastDrawn = now;
  const tasks = [...due];
  due.clear();
  tasks.forEach((task) => task());
}
