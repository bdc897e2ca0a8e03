// Server-sent events by fetch (EventSource cannot send a token): resumes where it broke off, says when it is not live.

import { headers, Refused } from "./api.js";

const SILENCE = 30000; // the node says something at least every 15 s

export class Live {
  // tell: { entry(item), changed(), state("live" | "lost" | "connecting"), refused(error) }
  constructor(tell) {
    this.tell = tell;
    this.last = 0;
    this.turn = 0; // which run is the running one
    this.running = false;
  }

  start() {
    if (this.running) return;
    this.running = true;
    this.turn += 1;
    this.#run(this.turn);
  }

  stop() {
    this.running = false;
    this.turn += 1;
    this.abort?.abort();
  }

  async #run(turn) {
    let pause = 500;
    this.tell.state("connecting");
    while (turn === this.turn) {
      try {
        await this.#read(() => { pause = 500; });
      } catch (error) {
        if (error instanceof Refused && error.status === 401) {
          this.stop();
          this.tell.state("lost");
          this.tell.refused(error);
          return;
        }
      }
      if (turn !== this.turn) return;
      this.tell.state("lost");
      await new Promise((done) => setTimeout(done, pause));
      pause = Math.min(5000, pause * 1.6);
    }
  }

  async #read(arrived) {
    this.abort = new AbortController();
    let watch = 0;
    const alive = () => {
      clearTimeout(watch);
      watch = setTimeout(() => this.abort.abort(), SILENCE);
    };
    alive();
    try {
      const answer = await fetch(`/v1/events?after=${this.last}`, {
        headers: headers({ Accept: "text/event-stream" }), cache: "no-store", signal: this.abort.signal,
      });
      if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => null));
      this.tell.state("live");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        alive();
        arrived();
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) this.#event(part);
      }
    } finally {
      clearTimeout(watch);
    }
  }

  #event(text) {
    let name = "message", data = "";
    for (const line of text.split("\n")) {
      if (line.startsWith("event: ")) name = line.slice(7);
      else if (line.startsWith("data: ")) data += line.slice(6);
    }
    if (!data) return;
    const found = JSON.parse(data);
    if (name === "status") this.tell.changed();
    else if (name === "message") {
      this.last = found.id;
      this.tell.entry(found);
    }
  }
}
