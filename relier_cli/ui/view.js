"use strict";
// Shows data.json. Whatever comes from there is a text: nothing of it is ever made into markup or code.

const EVERY = 2000; // ms between two looks
const MOST = 50; // rows of one table
const BAD = new Set(["page", "silent", "gone"]);
const ODD = new Set(["ticket", "burning", "draining", "drained", "paused", "nobody consumes it", "nobody declares it"]);

const percent = (share) => `${(share * 100).toFixed(1)} %`;
const perSecond = (rate) => (rate < 10 ? String(+rate.toPrecision(2)) : rate.toFixed(0));
const times = (rate) => (rate < 100 ? rate.toFixed(1) : rate.toFixed(0));
const target = (one) => `${+(one.target * 100).toPrecision(10)} % ${one.latency === null ? "succeed" : `within ${one.latency} s`}`;

function span(seconds) {
  if (seconds === null || seconds === undefined) return null;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} m`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

function element(tag, text, classes) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

function cell(value) {
  if (value === null || value === undefined || value === "") return element("td", "-", "none");
  const text = Array.isArray(value) ? value.join(", ") : String(value);
  const words = text.split("; ");
  return element("td", text, words.some((w) => BAD.has(w)) ? "bad" : words.some((w) => ODD.has(w)) ? "odd" : "");
}

function table(title, headers, rows) {
  const section = element("section");
  const more = rows.length > MOST ? ` (${rows.length - MOST} more)` : "";
  section.append(element("h2", title + more));
  if (!rows.length) {
    section.append(element("p", "none", "none"));
    return section;
  }
  const made = element("table");
  const head = made.createTHead().insertRow();
  for (const name of headers) head.append(element("th", name));
  const body = made.createTBody();
  for (const row of rows.slice(0, MOST)) body.insertRow().append(...row.map(cell));
  const box = element("div", undefined, "table");
  box.append(made);
  section.append(box);
  return section;
}

function actors(data) {
  const lately = new Map(data.actors.map((one) => [one.actor, one]));
  const burns = new Map(data.objectives.filter((one) => one.objective === "success").map((one) => [one.actor, one]));
  const names = [...new Set([...lately.keys(), ...burns.keys()])];
  const rows = names.map((name) => {
    const rates = lately.get(name);
    const burn = burns.get(name);
    const counts = rates ? rates.last_5_minutes : {};
    return [
      name,
      perSecond(rates ? rates.per_second.completed : 0),
      perSecond(rates ? rates.per_second.failed : 0),
      rates && span(rates.p95_wait_seconds),
      rates && span(rates.p95_run_seconds),
      counts.crashes || 0,
      counts.dead || 0,
      ...objective(burn),
    ];
  });
  const headers = ["actor", "done/s", "failed/s", "p95 wait", "p95 run", "crashes", "dead"];
  return table("Actors: rates, crashes and dead letters of 5 minutes, burn rates", [...headers, ...BURNS], rows);
}

const BURNS = ["1h", "6h", "3d", "budget left", "state"];
function objective(burn) {
  if (!burn) return [null, null, null, null, null];
  const rates = ["1h", "6h", "3d"].map((window) => times(burn.burn_rates[window]));
  return [...rates, percent(burn.budget_left), burn.state];
}

function sections(data) {
  const latencies = data.objectives.filter((one) => one.objective === "latency");
  const queues = data.queues.map((one) => [
    one.name, one.messages, one.due, one.scheduled, span(one.oldest_age), one.consumers.length,
    [...(one.paused ? ["paused"] : []), ...one.notes].join("; ") || "ok",
  ]);
  const workers = data.workers.map((one) => [
    one.id, one.role, one.state, one.queues, one.threads, one.tasks, span(one.uptime),
  ]);
  const running = data.running.longest.map((one) => [
    one.id, one.actor, one.queue, one.worker, span(one.seconds), one.attempts, one.resurrection_count,
  ]);
  const events = [...data.events].reverse().map((one) => [one.at, one.event, one.task, one.worker]);
  const made = [actors(data)];
  if (latencies.length) {
    const rows = latencies.map((one) => [one.actor, target(one), ...objective(one)]);
    made.push(table("Latency objectives: burn rates", ["actor", "objective", ...BURNS], rows));
  }
  made.push(table("Queues", ["queue", "messages", "due", "scheduled", "oldest", "consumers", "state"], queues));
  made.push(table("Workers", ["worker", "role", "state", "queues", "threads", "tasks", "uptime"], workers));
  made.push(table(`Running (${data.running.tasks})`, ["task", "actor", "queue", "worker", "for", "attempts", "crashes"], running));
  made.push(table("Events: what was not ordinary", ["at", "event", "task", "worker"], events));
  return made;
}

function show(data) {
  const counted = Object.entries(data.last_5_minutes).filter(([, n]) => n).map(([name, n]) => `${name} ${n}`);
  const told = `dead letters ${data.dead_letters}; in 5 minutes: ${counted.join(", ") || "nothing"}`;
  document.getElementById("head").textContent = `${data.at} · dead workers' tasks: ${data.sweepers} · ${told}`;
  const parked = data.parked.length ? `Parked actors: ${data.parked.join(", ")}. ` : "";
  const broker = data.trouble ? `The broker does not answer: ${data.trouble}` : "";
  document.getElementById("trouble").textContent = parked + broker;
  document.getElementById("sections").replaceChildren(...sections(data));
}

async function look() {
  try {
    const answer = await fetch("data.json", { cache: "no-store" });
    const data = await answer.json();
    if (!answer.ok) throw new Error(data.error || answer.statusText);
    show(data);
  } catch (error) {
    document.getElementById("trouble").textContent = `${error.message} (still trying)`;
  } finally {
    setTimeout(look, EVERY);
  }
}

if (typeof document !== "undefined") look();
