// What pages do beyond htmx: live parts over server-sent events, keys, tables that sort, and the token of a sign-in link.
"use strict";

// On a phone the links to pages are wider than the window.
document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });

// What changes by itself is told to those who hear a page, in a part that stays; once, and only when it is new.
function say(text) {
  const said = document.getElementById("said");
  if (said && text && said.textContent !== text) said.textContent = text;
}
let shown = document.querySelector("[data-say]")?.dataset.say;
document.addEventListener("htmx:afterSettle", (event) => {
  const told = event.target.matches?.("[data-say]") ? event.target : event.target.querySelector?.("[data-say]");
  const now = told?.dataset.say ?? shown;
  if (now !== shown) say((shown = now));
});

// A server that does not answer for a while is named, since a page that stands still looks like one on which nothing happens.
// Parts that got no answer, and whether each will ask again; one that will not is forgotten with any other answer.
const silent = new Map();
function heard(what) {
  const before = silent.size;
  for (const [one, asks] of silent) if (one === what || !asks()) silent.delete(one);
  const lost = document.getElementById("lost");
  if (before && !silent.size && lost && !lost.hidden) {
    lost.hidden = true;
    say("The server answers again");
  }
}
function unheard(what, asks) {
  silent.set(what, asks);
  setTimeout(() => {
    const lost = document.getElementById("lost");
    if (!silent.has(what) || !lost?.hidden) return;
    lost.hidden = false;
    say(lost.textContent);
  }, 3000);
}
const waits = new Map();
const triggers = (part) => part.getAttribute("hx-trigger") ?? "";
const asksAgain = (part) => () => part.isConnected && /every|ended/.test(triggers(part));
document.addEventListener("htmx:beforeRequest", (event) => {
  const { elt, requestConfig } = event.detail;
  if (requestConfig.verb === "get") waits.set(requestConfig.path, setTimeout(unheard, 5000, requestConfig.path, asksAgain(elt)));
});
document.addEventListener("htmx:afterRequest", (event) => {
  const { xhr, requestConfig, elt } = event.detail;
  if (requestConfig.verb !== "get") return;
  clearTimeout(waits.get(requestConfig.path));
  if (xhr.status && xhr.status < 500) return heard(requestConfig.path);
  unheard(requestConfig.path, asksAgain(elt));
  // What asks at an end alone is asked again; the others do so by themselves.
  if (triggers(elt).includes("ended") && !triggers(elt).includes("every"))
    setTimeout(() => document.body.dispatchEvent(new Event("ended")), 5000);
});

// What a person opened in a part stays open when the part is replaced.
let opened = [];
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  opened = [...detail.target.querySelectorAll("details[open]")].map((one) => one.id);
});
document.addEventListener("htmx:afterSwap", () => {
  for (const id of opened.filter(Boolean)) document.getElementById(id)?.setAttribute("open", "");
});

// A part with `data-events` is replaced by each event; at the end the rest of the page is told.
function follow(part) {
  const source = new EventSource(part.dataset.events);
  const state = () => part.querySelector(".state")?.textContent;
  const show = (event) => {
    const focused = document.activeElement?.id;
    const before = state();
    part.innerHTML = event.data; // rendered and escaped by our own server
    if (focused) document.getElementById(focused)?.focus();
    if (state() !== before) say(`The job is ${state()}`);
  };
  source.addEventListener("open", () => heard("events"));
  source.addEventListener("status", show);
  source.addEventListener("end", (event) => {
    show(event);
    source.close();
    document.body.dispatchEvent(new Event("ended"));
  });
  source.addEventListener("failed", (event) => {
    source.close();
    const said = document.createElement("p");
    said.className = "notice bad";
    said.textContent = event.data;
    part.prepend(said);
  });
  source.addEventListener("error", async () => {
    unheard("events", () => part.isConnected);
    // Browsers come back by themselves after a lost connection, but not after an answer that is no stream.
    if (source.readyState !== EventSource.CLOSED) return;
    const page = await fetch(location.href, { signal: AbortSignal.timeout(10000) }).catch(() => null);
    if (page?.redirected || [401, 403, 404, 410].includes(page?.status)) location.reload();
    else setTimeout(() => follow(part), 5000);
  });
}
document.querySelectorAll("[data-events]").forEach(follow);

// Times go on by themselves, by the clock of the server; on hover, the time here stands before that in UTC.
const ahead = Date.now() - Date.parse(document.body.dataset.now);
function rough(seconds) {
  if (seconds >= 2 * 86400) return `${Math.floor(seconds / 86400)} d`;
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h`;
  return seconds >= 60 ? `${Math.floor(seconds / 60)} min` : `${Math.round(seconds)} s`;
}
setInterval(() => {
  for (const time of document.querySelectorAll("time")) {
    const seconds = (Date.now() - ahead - Date.parse(time.dateTime)) / 1000;
    const short = rough(Math.abs(seconds));
    time.textContent = Math.abs(seconds) < 1 ? "now" : seconds > 0 ? `${short} ago` : `in ${short}`;
  }
}, 10000);
document.addEventListener("mouseover", ({ target }) => {
  if (target.tagName !== "TIME" || target.dataset.here) return;
  const then = new Date(target.dateTime);
  target.dataset.here = then.toLocaleString("sv-SE", { timeZoneName: "short" });
  if (then.getTimezoneOffset()) target.title = `${target.dataset.here} (${target.title})`;
});

// What no browser can show has no picture, and says so.
document.addEventListener(
  "error",
  (event) => {
    if (event.target.tagName !== "IMG") return;
    if (event.target.closest("[data-drop]")) {
      event.target.hidden = true;
      return;
    }
    const said = document.createElement("span");
    said.className = "gone";
    said.textContent = "no picture";
    event.target.replaceWith(said);
  },
  true,
);

// `imagemill up` prints an address with the token behind a #, which browsers do not send. Nothing is signed in before
// the person agrees, so no link can sign somebody in by itself.
const field = document.getElementById("token");
if (field && location.hash.startsWith("#imk_")) {
  field.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname + location.search);
  field.form.querySelector("button").focus();
}

for (const part of document.querySelectorAll("[data-reload]")) {
  setTimeout(() => location.reload(), 1000 * Number(part.dataset.reload));
}

// Tables with `data-sort` sort by the column whose heading is pressed; `data-value` is what a cell counts as.
for (const table of document.querySelectorAll("table[data-sort]")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.firstElementChild?.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const order = (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true }) * (down ? -1 : 1);
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(order));
    });
  });
}

// A table that is wider than the window scrolls alone, so keys must reach it, also where it holds no link.
const reach = () => {
  for (const part of document.querySelectorAll(".wide:not([role=region])")) {
    const scrolls = part.scrollWidth > part.clientWidth && !part.querySelector("a, button, input, select");
    scrolls ? part.setAttribute("tabindex", "0") : part.removeAttribute("tabindex");
  }
};
addEventListener("resize", reach);
document.addEventListener("htmx:load", reach);
reach();

// A refusal takes the place of what was pressed, so that nobody goes on as if it were done. A part that asks again by
// itself stays as it is.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status >= 400 && event.detail.requestConfig.verb !== "get") {
    event.detail.shouldSwap = true;
    event.detail.isError = false;
  }
});

// Keys: Escape leaves a field; j and k go through the rows of a page, g and a letter to a page, a letter of its own where a link has one.
let leads = false;
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") event.target.blur?.();
  const typing = event.target.closest?.("input:not([type=checkbox]):not([type=radio]), textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || keys?.open) return;
  if (event.key === "?" && keys) {
    event.preventDefault();
    showKeys();
    return;
  }
  if (leads || !document.querySelector(`main [data-go="${CSS.escape(event.key)}"]`)) {
    if (event.key === "g") {
      leads = true;
      setTimeout(() => (leads = false), 1500);
      return;
    }
  }
  const within = leads ? "header" : "main";
  leads = false;
  const link = event.key.length === 1 && document.querySelector(`${within} [data-go="${CSS.escape(event.key)}"]`);
  if (link) {
    event.preventDefault();
    link.matches("input[type=text]") ? link.focus() : link.click();
  } else if (event.key === "Enter" && !event.target.closest("a, button, summary")) {
    document.querySelector("main [data-enter]")?.click();
  } else if (event.key === "j" || event.key === "k") {
    const rows = [...document.querySelectorAll("main a.row")];
    const at = rows.indexOf(document.activeElement);
    const next = at < 0 ? 0 : at + (event.key === "j" ? 1 : -1);
    rows[Math.min(Math.max(next, 0), rows.length - 1)]?.focus();
  }
});

// The dialog of keys lists what this page has now, as its own links and buttons name it.
const keys = document.getElementById("keys");
const opener = document.getElementById("show-keys");
function showKeys() {
  const here = document.getElementById("keys-here");
  const rows = [...document.querySelectorAll("main [data-go]")].flatMap((one) => {
    const key = document.createElement("dt");
    key.append(Object.assign(document.createElement("kbd"), { textContent: one.dataset.go }));
    const name = one.getAttribute("aria-label") ?? one.labels?.[0]?.textContent ?? one.textContent;
    return [key, Object.assign(document.createElement("dd"), { textContent: name.replace(/\s+/g, " ").trim() })];
  });
  here.querySelector("dl").replaceChildren(...rows);
  here.hidden = !rows.length;
  keys.showModal();
}
if (keys) {
  opener.hidden = false; // without scripts there are no keys
  opener.addEventListener("click", showKeys);
}

// An image that is dropped or pasted goes into the field for a file, which asks as if it had been chosen there.
const drop = document.querySelector("[data-drop]");
if (drop) {
  const chosen = drop.querySelector("input[type=file]");
  const preview = drop.querySelector("img");
  const take = (files) => {
    if (!files?.length) return;
    chosen.files = files;
    chosen.dispatchEvent(new Event("change", { bubbles: true }));
  };
  chosen.addEventListener("change", () => {
    URL.revokeObjectURL(preview.src);
    preview.hidden = !chosen.files.length;
    if (chosen.files.length) preview.src = URL.createObjectURL(chosen.files[0]);
  });
  const over = (event) => {
    event.preventDefault();
    drop.classList.toggle("over", event.type === "dragover");
  };
  for (const type of ["dragover", "dragleave", "drop"]) document.addEventListener(type, over);
  document.addEventListener("drop", (event) => take(event.dataTransfer.files));
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
}

// The value of a slider stands beside its name while it is moved.
document.addEventListener("input", (event) => {
  const said = event.target.type === "range" && document.querySelector(`output[for="${CSS.escape(event.target.id)}"]`);
  if (said) said.textContent = Number(event.target.value).toFixed(event.target.id === "score" ? 3 : 4);
});
