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
}
document.querySelectorAll("[data-events]").forEach(follow);

document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });

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
