"use strict";
// The pages of `explore`. Where the reader is stands in the address (?q=chair&source=abo&object=…), so that it can be linked and the
// back button works. Texts of the corpus go into the page as textContent alone.

const TYPING = 250; // ms after the last letter before it is searched
const POINT = 2.2; // diameter of a point, pixels
const GRID = "rgba(128, 128, 128, 0.4)";
const NAMES = {
  source: "Source",
  category: "Category",
  license: "Licence",
  split: "List",
  captions: "Captions",
  failures: "Failures",
  warning: "Warnings",
  made: "Views and points",
};
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const at = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

const number = (value) =>
  Number.isInteger(value) || Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(4));
const address = (path, asked) => `${path}?${new URLSearchParams(asked)}`;
const count = (many, one, several = `${one}s`) => `${number(many)} ${many === 1 ? one : several}`;

let corpus = null; // what the server says of it
let state = new URLSearchParams(location.search);
const waiting = {}; // by kind of question: what stops it when another one is asked

async function ask(kind, path, asked = {}) {
  waiting[kind]?.abort();
  const control = (waiting[kind] = new AbortController());
  const answer = await fetch(address(path, asked), { signal: control.signal });
  if (answer.ok) return answer.json();
  const told = await answer.json().catch(() => null); // a bug, or a version of a table that was cleaned away
  throw new Error(told?.error ?? "The server could not answer; its terminal says why. If the corpus was cleaned up meanwhile, start it again.");
}

function problem(error) {
  if (error?.name === "AbortError") return;
  const lost = error instanceof TypeError; // fetch: nobody answers
  at("problem").textContent = lost ? "The server does not answer: start python -m jobs explore again." : error.message;
  at("problem").hidden = false;
}

// ---- where the reader is

function changed(changes) {
  const asked = new URLSearchParams(state);
  for (const [name, value] of Object.entries(changes)) value === null ? asked.delete(name) : asked.set(name, value);
  return asked;
}
const link = (asked) => (asked.size ? `/?${asked}` : "/");

function go(asked, { replace = false } = {}) {
  if (asked.toString() === state.toString()) return;
  history[replace ? "replaceState" : "pushState"]({ typed: false }, "", link(asked));
  show();
}

addEventListener("popstate", () => show());
document.addEventListener("click", (event) => {
  const anchor = event.target.closest("a");
  if (!anchor || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (anchor.origin !== location.origin || anchor.pathname !== "/") return;
  event.preventDefault();
  go(new URL(anchor.href).searchParams);
});

let scrolled = 0; // how far the list was, when an object was opened
function show() {
  const before = state;
  state = new URLSearchParams(location.search);
  at("problem").hidden = true;
  if (at("large").open) at("large").close();
  const page = state.has("object") ? "object" : state.get("show") === "failures" ? "failures" : "list";
  if (!at("list").hidden) scrolled = scrollY;
  const changedPage = at(page).hidden;
  for (const name of ["list", "failures", "object"]) at(name).hidden = name !== page;
  at("to-objects").ariaCurrent = page === "failures" ? null : "page";
  at("to-failures").ariaCurrent = page === "failures" ? "page" : null;
  if (document.activeElement !== at("words")) at("words").value = state.get("q") ?? "";
  document.title = corpus.name;
  if (page === "object") {
    if (state.get("object") !== before.get("object") || changedPage || !at("object").childElementCount) {
      openObject(state.get("object")).catch(problem);
      scrollTo(0, 0);
    }
  } else if (page === "failures") {
    showFailures().catch(problem);
    if (changedPage) scrollTo(0, 0);
  }
  if (page !== "failures") showList().then(() => page === "list" && changedPage && scrollTo(0, scrolled), problem);
}

// ---- objects that were found

const searched = () => {
  const asked = new URLSearchParams(state);
  for (const other of ["object", "show", "stage", "reason"]) asked.delete(other);
  return asked;
};
let listed = null; // what the cards show: the question, the ids, and how many there are
async function showList() {
  const asked = searched();
  at("stored").hidden = !asked.has("shuffle");
  if (listed?.asked === asked.toString()) return;
  const found = await ask("objects", "/api/objects", asked);
  listed = { asked: asked.toString(), ids: [], total: found.total };
  at("cards").replaceChildren();
  showFacets(found.facets);
  const everything = found.total === corpus.objects;
  at("told").replaceChildren(
    element("b", { textContent: number(found.total) }),
    everything ? ` ${found.total === 1 ? "object" : "objects"}` : ` of ${count(corpus.objects, "object")}`,
  );
  if (!found.total) {
    at("cards").append(element("p", { className: "none", textContent: "Nothing is found. Words may be the beginnings of words; all of them must occur." }));
  }
  append(found.objects);
}

function append(objects) {
  listed.ids.push(...objects.map((object) => object.id));
  at("cards").append(...objects.map((object) => card(object)));
  at("more").hidden = listed.ids.length >= listed.total;
  steps();
}

at("more").addEventListener("click", () => {
  ask("objects", "/api/objects", [...new URLSearchParams(listed.asked), ["offset", listed.ids.length]])
    .then(({ objects }) => append(objects))
    .catch(problem);
});
new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && at("more").click(), { rootMargin: "600px" }).observe(
  at("more"),
);

function picture(source, label) {
  const image = element("img", { src: source, alt: label, loading: "lazy", decoding: "async" });
  const box = element("span", { className: "picture" }, image);
  image.addEventListener("error", () => {
    box.replaceChildren("no picture");
    box.classList.add("empty");
  });
  return box;
}
const noPicture = () => element("span", { className: "picture empty", textContent: "no picture" });

const titleOf = (object) => object.name || object.categories?.join(", ") || object.id;

function card(object) {
  return element(
    "a",
    { className: "card", href: link(changed({ object: object.id, show: null, stage: null, reason: null })) },
    object.pictured ? picture(address("/picture", { id: object.id }), "") : noPicture(),
    element("b", { textContent: titleOf(object) }),
    object.score === undefined ? null : element("small", { textContent: `cosine ${object.score.toFixed(3)}` }),
    element("small", { textContent: [object.source, object.license].filter(Boolean).join(" · ") }),
    object.failed ? element("small", { className: "bad", textContent: "has a failure" }) : null,
  );
}

function showFacets(facets) {
  let wanted = 0;
  const made = Object.entries(NAMES).map(([name, title]) => {
    const { values, more } = facets[name];
    const now = state.get(name);
    if (values.length === 0 && !now) return null;
    if (now) wanted += 1;
    const select = element("select", { name, className: now ? "on" : "" }, element("option", { value: "", textContent: "all" }));
    for (const [value, many] of values) select.append(element("option", { value, textContent: `${value} (${number(many)})` }));
    if (now && !values.some(([value]) => value === now)) select.append(element("option", { value: now, textContent: `${now} (0)` }));
    select.value = now ?? "";
    select.addEventListener("change", () => go(changed({ [name]: select.value || null, object: null })));
    const told = more ? element("small", { textContent: `and ${number(more)} rarer ones` }) : null;
    return element("label", { className: "facet" }, title, select, told);
  });
  if (wanted) {
    const none = element("button", { type: "button", textContent: "Clear filters" });
    none.addEventListener("click", () => go(changed(Object.fromEntries(Object.keys(NAMES).map((name) => [name, null])))));
    made.push(none);
  }
  at("facets").replaceChildren(...made.filter(Boolean));
  at("filtered").textContent = wanted ? `(${wanted})` : "";
}

const wide = matchMedia("(min-width: 56rem)");
const fold = () => (at("filters").open = wide.matches);
wide.addEventListener("change", fold);
fold();

at("shuffle").addEventListener("click", () => go(changed({ shuffle: Math.floor(Math.random() * 1e6) })));
at("stored").addEventListener("click", () => go(changed({ shuffle: null })));

let timer = 0;
function search({ typed }) {
  clearTimeout(timer);
  const words = at("words").value.trim().replace(/\s+/g, " ");
  const asked = changed({ q: words || null, object: null, show: null, stage: null, reason: null });
  if (asked.toString() === state.toString()) return;
  const replace = typed && history.state?.typed; // one step back undoes a word, not a letter
  history[replace ? "replaceState" : "pushState"]({ typed }, "", link(asked));
  show();
}
at("words").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(search, TYPING, { typed: true });
});
at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search({ typed: true });
  at("words").blur();
});

// ---- an object

let opened = null;
async function openObject(id) {
  const box = at("object");
  opened = null;
  const object = await ask("object", "/api/object", { id });
  opened = object;
  const about = object.about;
  const title = titleOf(object);
  document.title = `${title} – ${corpus.name}`;
  const back = element("button", { type: "button", textContent: "← All found", title: "Escape" });
  back.addEventListener("click", leave);
  const step = (name, text, by, key) => {
    const made = element("button", { type: "button", textContent: text, className: name, title: key });
    made.addEventListener("click", () => beside(by));
    return made;
  };
  const badges = element("p", { className: "badges" });
  const badge = (facet, value) => value && badges.append(element("a", { href: link(new URLSearchParams({ [facet]: value })), textContent: value }));
  badge("source", object.source);
  badge("license", object.license);
  for (const category of about?.categories ?? []) badge("category", category);
  if (about?.creator) badges.append(element("span", { textContent: `by ${about.creator}` }));
  for (const warning of [...(about?.warnings ?? []), ...(object.points?.warnings ?? [])]) {
    badges.append(element("span", { className: "bad", textContent: warning.replaceAll("_", " ") }));
  }
  box.replaceChildren(
    element("div", { className: "bar" }, element("p", {}, back), element("small", { className: "where" }), step("previous", "←", -1, "Arrow left"), step("next", "→", 1, "Arrow right")),
    element("h1", { textContent: title }),
    element("small", { textContent: id }),
    badges,
    ...part(object.failures.length && count(object.failures.length, "failure"), ...object.failures.map((failure) => failureCase(failure, { own: true }))),
    element("div", { className: "columns" }, element("div", {}, ...viewsOf(object)), element("div", {}, ...cloudOf(object))),
    element("div", { className: "columns" }, element("div", {}, ...captionsOf(object)), element("div", {}, ...metadataOf(object))),
    ...(corpus.alike && (object.views.length || object.points) ? alikeOf(id) : []),
  );
  steps();
}

const part = (title, ...children) => (title ? [element("h2", { textContent: title }), ...children] : []);

function viewsOf(object) {
  if (!object.views.length) return part("Views", element("p", { className: "none", textContent: "It has no views." }));
  const buttons = object.views.map((view, place) => {
    const made = element("button", { type: "button", title: `View ${view.view}` }, picture(viewAddress(object, place), `View ${view.view}`));
    made.addEventListener("click", () => enlarge(place));
    return made;
  });
  return part(count(object.views.length, "view"), element("div", { className: "views" }, ...buttons));
}
const viewAddress = (object, place) => address("/view", { id: object.id, view: object.views[place].view });

let enlarged = 0;
function enlarge(place) {
  const views = opened.views;
  enlarged = (place + views.length) % views.length;
  const view = views[enlarged];
  at("large-view").src = viewAddress(opened, enlarged);
  at("large-view").alt = `View ${view.view}`;
  const measures = { covered: view.alpha_coverage, "at the border": view.border_coverage, "too dark": view.dark_share, "too bright": view.bright_share };
  const told = Object.entries(measures).filter(([, share]) => share > 0.0005).map(([name, share]) => `${(100 * share).toFixed(1)} % ${name}`);
  at("large-told").textContent = [`View ${view.view}`, `${view.width} × ${view.height}`, view.kind, view.file, ...told].filter(Boolean).join(" · ");
  at("before").disabled = at("after").disabled = views.length < 2;
  if (!at("large").open) at("large").showModal();
}
at("before").addEventListener("click", () => enlarge(enlarged - 1));
at("after").addEventListener("click", () => enlarge(enlarged + 1));
at("close").addEventListener("click", () => at("large").close());
at("large").addEventListener("click", (event) => event.target === at("large") && at("large").close());

function captionsOf(object) {
  const items = object.captions.map((caption) =>
    element(
      "li",
      { className: caption.kept ? "" : "dropped" },
      element("q", { textContent: caption.text }),
      element(
        "small",
        {},
        caption.kept ? "" : element("span", { className: "why", textContent: `dropped: ${caption.dropped_because} · ` }),
        [caption.origin, caption.model, caption.score === null ? null : `cosine ${caption.score.toFixed(3)}`].filter(Boolean).join(" · "),
      ),
    ),
  );
  const kept = object.captions.filter((caption) => caption.kept).length;
  const title = items.length ? `${count(kept, "caption")} kept, ${number(items.length - kept)} dropped` : "Captions";
  return part(title, items.length ? element("ul", { className: "captions" }, ...items) : element("p", { className: "none", textContent: "It has no captions." }));
}

function metadataOf(object) {
  const list = element("dl");
  const add = (name, value, doc) => {
    if (value === null || value === undefined || value === "" || (Array.isArray(value) && !value.length)) return;
    const text = Array.isArray(value)
      ? value.map((one) => (typeof one === "object" ? Object.values(one).join(" ") : one)).join(typeof value[0] === "object" ? "\n" : ", ")
      : typeof value === "number" ? number(value) : String(value);
    list.append(element("dt", { textContent: name.replaceAll("_", " "), title: doc ?? "" }), element("dd", { textContent: text }));
  };
  for (const [name, value] of Object.entries(object.about ?? {})) if (!["stage", "stage_key"].includes(name)) add(name, value, corpus.columns.objects?.[name]);
  for (const split of object.splits) add(`list ${split.split}`, split.label ?? "named", corpus.columns.splits?.label);
  for (const [name, value] of Object.entries(object.points ?? {})) if (name !== "warnings") add(name, value, corpus.columns.points?.[name]);
  return part("Metadata", list.childElementCount ? list : element("p", { className: "none", textContent: "It was not let in; nothing but its failure is known." }));
}

function alikeOf(id) {
  const cards = element("div", { className: "cards" }, element("p", { className: "none", textContent: "Looking …" }));
  ask("alike", "/api/alike", { id }).then((found) => cards.replaceChildren(...found.map((object) => card(object)), ...(found.length ? [] : ["It has no embedding."])), problem);
  return part("Looks alike", cards);
}

// ---- points

let plotly = null;
const drawing = () =>
  (plotly ??= new Promise((done, failed) => {
    document.head.append(element("script", { src: "/plotly.js", onload: () => done(window.Plotly), onerror: () => failed(new Error("plotly.js does not load")) }));
  }));

function cloudOf(object) {
  if (!object.points) return part("Points", element("p", { className: "none", textContent: "It has no points." }));
  const box = element("div", { className: "cloud" }, element("p", { className: "waiting", textContent: "Reading the points …" }));
  box.role = "img";
  box.ariaLabel = "The object's points in space";
  const tools = element("p", { className: "tools" });
  drawCloud(object.id, box, tools).catch((error) => {
    if (error?.name !== "AbortError") box.replaceChildren(element("p", { className: "waiting", textContent: `The points are not drawn: ${error.message}` }));
  });
  return part("Points", box, tools);
}

async function drawCloud(id, box, tools) {
  waiting.points?.abort();
  const control = (waiting.points = new AbortController());
  const [answer, Plotly] = await Promise.all([fetch(address("/points", { id }), { signal: control.signal }), drawing()]);
  if (!answer.ok) throw new Error((await answer.json()).error);
  const bytes = await answer.arrayBuffer();
  const many = new DataView(bytes).getUint32(0, true);
  const xyz = new Float32Array(bytes, 4, 3 * many);
  const rgb = new Uint8Array(bytes, 4 + xyz.byteLength);
  const axis = (of) => Float32Array.from({ length: many }, (_, point) => xyz[3 * point + of]);
  const [x, y, z] = [axis(0), axis(1), axis(2)];
  const colors = rgb.length ? Array.from({ length: many }, (_, point) => `rgb(${rgb.subarray(3 * point, 3 * point + 3).join()})`) : null;
  const shown = { grid: false, colored: colors !== null };
  // The canonical frame has y up and z to the front; plotly's z is up: a turn about x, not a mirror.
  const draw = () => {
    const ink = resolved("--grey");
    const own = (title) => ({ title: { text: title }, visible: shown.grid, range: [-1, 1], color: ink, gridcolor: GRID, zerolinecolor: ink, showbackground: false, showspikes: false });
    const marker = { size: POINT, line: { width: 0 }, ...(shown.colored ? { color: colors } : { color: y, colorscale: "Viridis" }) };
    return Plotly.react(
      box,
      [{ type: "scatter3d", mode: "markers", x, y: z.map((value) => -value), z: y, marker, hoverinfo: "skip" }],
      {
        margin: { l: 0, r: 0, t: 0, b: 0 },
        paper_bgcolor: "rgba(0,0,0,0)",
        uirevision: id,
        hovermode: false, // else each move of the mouse draws all points once more, to be picked from
        scene: { aspectmode: "cube", hovermode: false, xaxis: own("x"), yaxis: own("−z (back)"), zaxis: own("y (up)"), dragmode: "turntable", camera: { eye: { x: 1, y: -1.4, z: 0.65 } } },
      },
      { displayModeBar: false, responsive: true },
    );
  };
  box.replaceChildren();
  await draw();
  const toggle = (name, text) => {
    const made = element("button", { type: "button", textContent: text, ariaPressed: String(shown[name]) });
    made.addEventListener("click", () => {
      shown[name] = !shown[name];
      made.ariaPressed = String(shown[name]);
      draw();
    });
    return made;
  };
  tools.replaceChildren(
    toggle("grid", "Grid"),
    colors ? toggle("colored", "Colours") : element("small", { textContent: "The asset has no colour; shown by height." }),
    element("small", { textContent: `${number(many)} points; drag to turn, scroll or pinch to come nearer` }),
  );
  dark.onchange = () => box.isConnected && draw();
}
const dark = matchMedia("(prefers-color-scheme: dark)");

function resolved(name) {
  const probe = document.body.appendChild(element("i"));
  probe.style.color = `var(${name})`;
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}

// ---- failures

function failureCase(failure, { own = false } = {}) {
  const head = own
    ? `${failure.stage}: ${failure.reason}`
    : failure.known
      ? element("a", { href: link(new URLSearchParams({ object: failure.object_id })), textContent: failure.object_id })
      : failure.object_id;
  const tried = failure.attempts > 1 ? ` (Tried ${failure.attempts} times.)` : "";
  return element(
    "div",
    { className: "case" },
    failure.thumbnail
      ? picture(address("/thumbnail", { id: failure.object_id, stage: failure.stage }), "What was made and not let in")
      : failure.pictured && !own
        ? picture(address("/picture", { id: failure.object_id }), "")
        : null,
    element(
      "div",
      {},
      element("h3", {}, head),
      element("p", { textContent: failure.message + tried }),
      failure.log_tail ? element("pre", { textContent: failure.log_tail, tabIndex: 0 }) : null,
      own ? command(failure.command) : null,
    ),
  );
}

function command(text) {
  const code = element("code", { textContent: text });
  const copy = element("button", { type: "button", textContent: "Copy", ariaLabel: "Copy the command" });
  copy.addEventListener("click", async () => {
    getSelection().selectAllChildren(code); // where the clipboard is out of reach, the keyboard does the rest
    await navigator.clipboard?.writeText(text);
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  return element("p", { className: "command" }, code, copy);
}

async function showFailures() {
  const box = at("failures");
  if (!box.childElementCount) {
    const { kinds } = await ask("kinds", "/api/failures");
    const total = kinds.reduce((sum, kind) => sum + kind.count, 0);
    box.replaceChildren(
      element("h1", { textContent: total ? count(total, "failure") : "No failures" }),
      element("p", { className: "note", textContent: total ? "By stage and reason, the most frequent first. The command makes the next build try them again." : "No stage failed on anything." }),
      ...kinds.map(kindOf),
    );
  }
  document.title = `Failures – ${corpus.name}`;
  const wanted = all(".kind", box).find((fold) => fold.dataset.stage === state.get("stage") && fold.dataset.reason === state.get("reason"));
  for (const fold of all(".kind", box)) fold.open = fold === wanted;
  wanted?.scrollIntoView({ block: "nearest" });
}

function kindOf({ stage, reason, count: many, command: retry }) {
  const cases = element("div");
  const more = element("button", { type: "button", className: "more", textContent: "Show more", hidden: true });
  const fold = element(
    "details",
    { className: "kind" },
    element("summary", {}, element("h3", { textContent: `${stage}: ${reason}` }), element("small", { textContent: number(many) })),
    command(retry),
    cases,
    more,
  );
  Object.assign(fold.dataset, { stage, reason });
  const read = async () => {
    const found = await ask(`failures ${stage} ${reason}`, "/api/failures", { stage, reason, offset: cases.childElementCount, count: 20 });
    cases.append(...found.failures.map((failure) => failureCase(failure)));
    more.hidden = cases.childElementCount >= found.total;
  };
  more.addEventListener("click", () => read().catch(problem));
  fold.addEventListener("toggle", () => {
    if (fold.open && !cases.childElementCount) read().catch(problem);
    const here = state.get("stage") === stage && state.get("reason") === reason;
    if (fold.open !== here && state.get("show") === "failures") {
      if (fold.open) go(new URLSearchParams({ show: "failures", stage, reason }));
      else go(new URLSearchParams({ show: "failures" }));
    }
  });
  return fold;
}

// ---- keys, and what stands beside an object

const place = () => (opened && listed ? listed.ids.indexOf(opened.id) : -1);
function steps() {
  const box = at("object"), here = place();
  if (!box.querySelector(".next")) return;
  box.querySelector(".where").textContent = here < 0 ? "" : `${number(here + 1)} of ${number(listed.total)}`;
  box.querySelector(".previous").disabled = here < 1;
  box.querySelector(".next").disabled = here < 0 || here + 1 >= listed.ids.length;
  if (here >= 0 && here + 1 === listed.ids.length && listed.ids.length < listed.total) at("more").click();
}
function beside(by) {
  const id = place() < 0 ? undefined : listed.ids[place() + by];
  if (id !== undefined) go(changed({ object: id }), { replace: true }); // back leads to the list, not through all that was passed
}
const leave = () => go(changed({ object: null }));

function moved(key) {
  const cards = all("#cards .card");
  const here = cards.indexOf(document.activeElement);
  const columns = getComputedStyle(at("cards")).gridTemplateColumns.split(" ").length;
  const to = here < 0 ? 0 : here + { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[key];
  cards[to]?.focus();
  return to in cards;
}

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = target.matches("input, select, textarea");
  if (at("large").open) {
    if (key === "ArrowLeft") enlarge(enlarged - 1);
    if (key === "ArrowRight") enlarge(enlarged + 1);
  } else if (key === "/" && !typing) {
    event.preventDefault();
    at("words").focus();
    at("words").select();
  } else if (key === "Escape" && target === at("words")) {
    at("words").blur();
  } else if (key === "Escape" && !at("object").hidden) {
    leave();
  } else if (!at("object").hidden && !typing && (key === "ArrowLeft" || key === "ArrowRight")) {
    beside(key === "ArrowLeft" ? -1 : 1);
  } else if (!at("list").hidden && key.startsWith("Arrow") && (!typing || (target === at("words") && key === "ArrowDown"))) {
    if (moved(key)) event.preventDefault();
  }
});

ask("corpus", "/api/corpus").then((told) => {
  corpus = { ...told, name: told.root.replace(/\/+$/, "").split("/").pop() || told.root };
  at("home").textContent = corpus.name;
  at("home").title = told.root;
  at("to-failures").textContent = told.failures ? `Failures (${number(told.failures)})` : "Failures";
  show();
}, problem);
