/** What a page in Chromium does in some seconds: its frames, and how busy its main thread is. */
import type { Page } from "playwright-core";

export async function measure(page: Page, seconds: number): Promise<string> {
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable");
  const metric = async (name: string) => {
    const { metrics } = await session.send("Performance.getMetrics");
    return metrics.find((each) => each.name === name)?.value ?? 0;
  };
  const share = async (name: string, before: number) =>
    `${(((await metric(name)) - before) / seconds * 100).toFixed(0)}%`;
  const [tasks, scripts] = [await metric("TaskDuration"), await metric("ScriptDuration")];
  const frames = (await page.evaluate(`new Promise((resolve) => {
    const frames = [];
    const end = performance.now() + ${seconds * 1_000};
    let before = performance.now();
    requestAnimationFrame(function frame(now) {
      frames.push(now - before);
      before = now;
      if (now < end) requestAnimationFrame(frame);
      else resolve(frames);
    });
  })`)) as number[];
  const [main, script] = [await share("TaskDuration", tasks), await share("ScriptDuration", scripts)];
  await session.detach();
  frames.sort((a, b) => a - b);
  const rank = (part: number) => (frames[Math.floor(part * (frames.length - 1))] ?? 0).toFixed(1);
  return (
    `${(frames.length / seconds).toFixed(1)} frames/s; ms between frames: p50 ${rank(0.5)}, ` +
    `p99 ${rank(0.99)}, most ${rank(1)}; ${frames.filter((each) => each > 25).length} dropped; ` +
    `main thread ${main}, of it scripts ${script}`
  );
}
