"use strict";
// The page's script: the sample browser, the choice of a score, sortable tables. Content from rows and models is always set as text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 25;
  const $ = (id) => document.getElementById(id);

  /** Make an element with properties, attributes (in `attributes`) and children; strings are text. */
  function make(name, properties = {}, ...children) {
    const { attributes = {}, ...plain } = properties;
    const element = Object.assign(document.createElement(name), plain);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  // --- numbers for people

  const grouped = new Intl.NumberFormat("en");
  const count = (number, what) => `${grouped.format(number)} ${what}${number === 1 ? "" : "s"}`;
  const scored = (value) => (value === undefined ? "–" : Number.isInteger(value) ? String(value) : value.toFixed(3));
  const seconds = (value) => (value === undefined ? "–" : value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`);
  const dollars = (value) => (value >= 1 || value === 0 ? `$${value.toFixed(2)}` : `$${Number(value.toPrecision(3))}`);

  // --- the rows and their filters

  const samples = data.samples;
  samples.forEach((sample, index) => {
    sample.index = index;
    sample.part ??= 0;
    sample.scores = new Map(Object.entries(sample.scores ?? {})); // a score may be called __proto__
  });
  let messageTexts = null; // lower case, made on the first search

  function prepareSearch() {
    messageTexts = data.messages.map((message) => message.text.toLowerCase());
    for (const sample of samples) {
      const { id, output = "", target = "", error } = sample;
      sample.text = [id, output, target, error ? `${error.code} ${error.message}` : ""].join("\n").toLowerCase();
    }
  }

  function searcher(query) {
    const wanted = query.trim().toLowerCase();
    if (!wanted) return () => true;
    if (!messageTexts) prepareSearch();
    const hits = messageTexts.map((text) => text.includes(wanted)); // a message that many samples share is searched once
    return (sample) => sample.text.includes(wanted) || sample.messages.some((number) => hits[number]);
  }

  const statusTests = new Map([["", () => true]]);
  const scoreTests = new Map([["", () => true]]);

  /** Return the options of the status filter: every status and every error code that occurs. */
  function statusOptions() {
    const options = [["", "any status"]];
    const seen = new Set(samples.map((sample) => sample.status));
    for (const status of ["ok", "error", "truncated", "refused", "empty", "invalid"].filter((one) => seen.has(one))) {
      options.push([`is ${status}`, status]);
      statusTests.set(`is ${status}`, (sample) => sample.status === status);
    }
    for (const code of [...new Set(samples.map((sample) => sample.error?.code))].filter(Boolean).sort()) {
      options.push([`code ${code}`, `error: ${code}`]);
      statusTests.set(`code ${code}`, (sample) => sample.error?.code === code);
    }
    return options;
  }

  /** Return the options of the score filter: right and wrong for scores from 0 to 1, else above and below the median. */
  function scoreOptions() {
    const options = [["", "any score"]];
    const add = (key, label, test) => { options.push([key, label]); scoreTests.set(key, test); };
    for (const name of data.scores) {
      const values = samples.map((sample) => sample.scores.get(name)).filter((value) => value !== undefined).sort((a, b) => a - b);
      const has = (test) => (sample) => sample.scores.get(name) !== undefined && test(sample.scores.get(name));
      if (values.length && values[0] >= 0 && values.at(-1) <= 1) {
        add(`${name} wrong`, `${name}: below 1`, has((value) => value < 1));
        add(`${name} right`, `${name}: 1`, has((value) => value === 1));
      } else if (values.length) {
        const middle = values[values.length >> 1];
        add(`${name} low`, `${name}: below ${scored(middle)}`, has((value) => value < middle));
        add(`${name} high`, `${name}: ${scored(middle)} or more`, has((value) => value >= middle));
      }
    }
    add("none", "not scored", (sample) => sample.scores.size === 0);
    return options;
  }

  // --- columns

  const columns = [
    { key: "id", label: "Row", value: (sample) => sample.index, cell: (sample) => sample.id },
    ...(data.parts.length ? [{ key: "part", label: "Cell", value: (sample) => sample.part, cell: (sample) => data.parts[sample.part] }] : []),
    { key: "status", label: "Status", value: (sample) => sample.status, cell: (sample) => sample.status },
    ...data.scores.slice(0, 3).map((name, index) => (
      { key: `score${index}`, label: name, number: true, value: (sample) => sample.scores.get(name), cell: (sample) => scored(sample.scores.get(name)) })),
    { key: "answer", label: "Answer", value: (sample) => said(sample).length, cell: (sample) => said(sample).slice(0, 240), hint: "by length" },
    { key: "latency", label: "Latency", number: true, value: (sample) => sample.latency, cell: (sample) => seconds(sample.latency) },
  ];
  const said = (sample) => (sample.error ? `${sample.error.code}: ${sample.error.message}` : sample.output ?? "");

  const state = { query: "", status: "", score: "", part: "", sort: "id", down: false, page: 0, open: null, focus: 0 };
  let found = samples;

  function select() {
    const began = performance.now();
    const matches = searcher(state.query);
    const status = statusTests.get(state.status) ?? statusTests.get("");
    const score = scoreTests.get(state.score) ?? scoreTests.get("");
    found = samples.filter((sample) => (
      (state.part === "" || sample.part === Number(state.part)) && status(sample) && score(sample) && matches(sample)));
    const { value } = columns.find((column) => column.key === state.sort);
    const way = state.down ? -1 : 1;
    if (state.sort !== "id" || state.down) found.sort((a, b) => way * compare(value(a), value(b), way) || a.index - b.index);
    state.page = Math.min(state.page, Math.max(0, Math.ceil(found.length / PAGE) - 1));
    browser.dataset.took = (performance.now() - began).toFixed(1);
  }

  /** Compare two values; missing ones come last in both directions. */
  function compare(a, b, way) {
    if (a === undefined || b === undefined) return way * ((a === undefined) - (b === undefined));
    return a < b ? -1 : a > b ? 1 : 0;
  }

  // --- the browser's parts

  const browser = $("browser");
  let list, said_, pane, layout, search;

  function chooser(id, label, options) {
    const control = make("select", { id }, ...options.map(([value, text]) => make("option", { value, textContent: text })));
    control.addEventListener("change", () => { state[id.slice(2)] = control.value; refresh(); });
    return make("label", {}, make("span", { textContent: label }), control);
  }

  function build() {
    search = make("input", { id: "f-query", type: "search", spellcheck: false, autocomplete: "off", placeholder: "prompt, answer, target, error, id" });
    let timer;
    search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => { state.query = search.value; refresh(); }, 60);
    });
    const form = make("form", { className: "filters", attributes: { role: "search", "aria-label": "Filter samples" } },
      make("label", { className: "wide" }, make("span", {}, "Text ", make("kbd", { textContent: "/" })), search),
      chooser("f-status", "Status", statusOptions()), chooser("f-score", "Score", scoreOptions()),
      data.parts.length ? chooser("f-part", "Cell", [["", "any cell"], ...data.parts.map((label, index) => [String(index), label])]) : null);
    form.addEventListener("submit", (event) => event.preventDefault());
    said_ = make("p", { className: "found", attributes: { role: "status" } });
    list = make("tbody");
    const table = make("table", { className: "samples", id: "sample-table" },
      make("caption", { className: "hidden", textContent: "Samples; Enter opens one, arrow keys go up and down" }),
      make("thead", {}, make("tr", {}, ...columns.map(header))), list);
    pane = make("section", { className: "pane", id: "sample-pane", hidden: true, attributes: { "aria-label": "One sample" } });
    layout = make("div", { className: "layout" }, make("div", { className: "list" }, table, pager()), pane);
    browser.append(form, said_, layout,
      make("p", { className: "keys" }, ...keys("↑", "↓"), " move · ", ...keys("Enter"), " open · ", ...keys("j", "k"),
        " next, previous · ", ...keys("←", "→"), " pages · ", ...keys("/"), " search · ", ...keys("Esc"), " close"));
    list.addEventListener("click", clicked);
    document.addEventListener("keydown", pressed);
  }

  const keys = (...names) => names.map((textContent) => make("kbd", { textContent }));

  function header(column) {
    const button = make("button", { type: "button" }, column.label);
    if (column.hint) button.append(make("span", { className: "hidden", textContent: ` ${column.hint}` }));
    button.addEventListener("click", () => {
      state.down = state.sort === column.key ? !state.down : false;
      state.sort = column.key;
      refresh();
    });
    return make("th", { scope: "col", className: column.number ? `c-${column.key} number` : `c-${column.key}`, attributes: { "data-key": column.key } }, button);
  }

  function pager() {
    const turn = (text, by) => {
      const button = make("button", { type: "button", textContent: text, attributes: { "data-by": by } });
      button.addEventListener("click", () => turnPage(by));
      return button;
    };
    return make("nav", { className: "pager", attributes: { "aria-label": "Pages of samples" } },
      turn("Previous", -1), make("span", { className: "where" }), turn("Next", 1));
  }

  // --- showing

  function refresh() {
    state.page = 0;
    state.focus = 0;
    select();
    draw();
  }

  function draw() {
    const start = state.page * PAGE;
    const rows = found.slice(start, start + PAGE);
    state.focus = Math.min(state.focus, Math.max(0, rows.length - 1));
    list.replaceChildren(...rows.map(row));
    if (!rows.length) list.append(make("tr", {}, make("td", { colSpan: columns.length, className: "empty", textContent: "No sample matches." })));
    said_.textContent = found.length === samples.length
      ? count(samples.length, "sample") : `${grouped.format(found.length)} of ${count(samples.length, "sample")}`;
    for (const head of browser.querySelectorAll("th[data-key]")) {
      if (head.dataset.key === state.sort) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    browser.querySelector(".where").textContent = `page ${state.page + 1} of ${grouped.format(pages)}`;
    browser.querySelector(".pager").hidden = pages === 1;
    browser.querySelector("[data-by='-1']").disabled = state.page === 0;
    browser.querySelector("[data-by='1']").disabled = state.page === pages - 1;
  }

  function row(sample, index) {
    const opener = make("button", { type: "button", textContent: sample.id + (sample.repeat ? ` · ${sample.repeat}` : ""),
      ariaLabel: sample.repeat ? `${sample.id}, repeat ${sample.repeat}` : null,
      tabIndex: index === state.focus ? 0 : -1, attributes: { "aria-expanded": sample === state.open, "aria-controls": "sample-pane" } });
    const cells = columns.slice(1).map((column) => {
      const content = column.key === "status" ? make("span", { className: `pill ${sample.status}`, textContent: sample.status }) : column.cell(sample);
      return make("td", { className: column.number ? `c-${column.key} number` : `c-${column.key}` }, content);
    });
    const element = make("tr", { className: sample === state.open ? "open" : "" }, make("th", { scope: "row", className: "c-id" }, opener), ...cells);
    element.sample = sample;
    return element;
  }

  function block(title, text, className = "", images = []) {
    if (text === undefined) return null;
    return make("div", { className: `block ${className}` }, make("h4", { textContent: title }),
      make("pre", { textContent: text === "" ? "(empty)" : text }),
      ...images.map((name) => make("img", { src: data.images[name], alt: `image ${name.slice(0, 12)}` })));
  }

  function spoken({ role, text, images }) {
    return block(role, text, "asked", images);
  }

  function facts(sample) {
    const { usage, cost, saved, attempts = 0, error } = sample;
    const lines = [
      ...(data.parts.length ? [["cell", data.parts[sample.part]]] : []),
      ...[...sample.scores].map(([name, value]) => [`score ${name}`, scored(value)]),
      ["status", error?.status ? `${sample.status} (HTTP ${error.status})` : sample.status],
      ["finish reason", sample.finish], ["model", sample.model],
      ["tokens", usage && `${grouped.format(usage.prompt_tokens ?? 0)} in, ${grouped.format(usage.completion_tokens ?? 0)} out`],
      ["latency", sample.latency === undefined ? undefined : seconds(sample.latency)],
      ["first token", sample.first_token === undefined ? undefined : seconds(sample.first_token)],
      ["cost", cost === undefined ? "unknown" : saved ? `${dollars(cost)} (${dollars(saved)} saved)` : dollars(cost)],
      ["cache", sample.cache], ["attempts", attempts || undefined],
    ].filter(([, value]) => value !== undefined);
    return make("dl", {}, ...lines.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]));
  }

  function show(sample, { focus = false } = {}) {
    state.open = sample;
    pane.hidden = false;
    layout.classList.add("split");
    const close = make("button", { type: "button", textContent: "Close" });
    close.addEventListener("click", hide);
    const heading = make("h3", { tabIndex: -1, textContent: `Row ${sample.id}${sample.repeat ? `, repeat ${sample.repeat}` : ""}` });
    pane.replaceChildren(...[make("div", { className: "bar" }, heading, close),
      ...sample.messages.map((number) => spoken(data.messages[number])),
      block("thinking", sample.reasoning, "asked"), block("answer", sample.output, "answer"),
      block("judged", sample.judged, "asked"), block("target", sample.target),
      sample.error ? block(`error: ${sample.error.code}`, sample.error.message, "failure") : null, facts(sample)].filter(Boolean));
    pane.scrollTop = 0;
    mark();
    if (focus || getComputedStyle(pane).position === "fixed") heading.focus();
  }

  function hide() {
    state.open = null;
    pane.hidden = true;
    layout.classList.remove("split");
    mark();
    focusRow(state.focus);
  }

  function mark() {
    for (const element of list.rows) {
      if (!element.sample) continue;
      element.className = element.sample === state.open ? "open" : "";
      element.querySelector("button").setAttribute("aria-expanded", element.sample === state.open);
    }
  }

  // --- mouse and keys

  function clicked(event) {
    const element = event.target.closest("tr");
    if (!element?.sample || String(getSelection())) return;
    moveTo(element.sectionRowIndex);
    if (element.sample === state.open) hide();
    else show(element.sample, { focus: event.detail === 0 });
  }

  function moveTo(index) {
    list.rows[state.focus]?.querySelector("button")?.setAttribute("tabindex", -1);
    state.focus = index;
    list.rows[index]?.querySelector("button")?.setAttribute("tabindex", 0);
  }

  function focusRow(index) {
    moveTo(index);
    list.rows[index]?.querySelector("button")?.focus();
  }

  function turnPage(by, focus = null) {
    const page = state.page + by;
    if (page < 0 || page * PAGE >= found.length) return false;
    state.page = page;
    state.focus = focus === "last" ? PAGE - 1 : 0;
    draw();
    if (focus) focusRow(state.focus);
    return true;
  }

  /** Move up or down by one sample, across pages; an open pane follows. */
  function step(by, { open = state.open !== null, keep = false } = {}) {
    const index = state.focus + by;
    const there = index >= 0 && index < list.rows.length;
    if (there) moveTo(index);
    else if (!turnPage(by, by < 0 ? "last" : "first")) return;
    if (!keep) focusRow(state.focus);
    if (open) show(found[state.page * PAGE + state.focus], { focus: keep });
  }

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "Escape") return escape(event, typing);
    if (typing) return typing === search && event.key === "ArrowDown" ? take(event, () => focusRow(state.focus)) : undefined;
    if (event.key === "/") return take(event, () => { search.focus(); search.select(); });
    const inPane = pane.contains(event.target);
    if (event.key === "j") return take(event, () => step(1, { open: true, keep: inPane }));
    if (event.key === "k") return take(event, () => step(-1, { open: true, keep: inPane }));
    if (!list.contains(event.target)) return undefined;
    const moves = {
      ArrowDown: () => step(1), ArrowUp: () => step(-1), Home: () => focusRow(0), End: () => focusRow(list.rows.length - 1),
      ArrowRight: () => turnPage(1, "first"), ArrowLeft: () => turnPage(-1, "first"),
      PageDown: () => turnPage(1, "first"), PageUp: () => turnPage(-1, "first"),
    };
    return moves[event.key] ? take(event, moves[event.key]) : undefined;
  }

  function take(event, action) {
    event.preventDefault();
    action();
  }

  function escape(event, typing) {
    if (typing === search && search.value) take(event, () => { search.value = ""; state.query = ""; refresh(); });
    else if (typing === search) take(event, () => focusRow(state.focus));
    else if (state.open) take(event, hide);
  }

  // --- the rest of the page

  function choose(id, value) {
    const control = $(id);
    control.value = value;
    state[id.slice(2)] = value;
  }

  function errorButtons() {
    for (const button of document.querySelectorAll("button[data-error]")) {
      button.addEventListener("click", () => {
        search.value = state.query = "";
        choose("f-score", "");
        choose("f-status", `code ${button.dataset.error}`);
        refresh();
        $("samples").scrollIntoView();
        focusRow(0);
      });
    }
  }

  /** Show the charts of one score at a time. */
  function scoreChoice() {
    const control = $("choose-score");
    if (!control) return;
    const show = () => {
      for (const group of document.querySelectorAll("[data-score]")) group.hidden = group.dataset.score !== control.value;
    };
    control.addEventListener("change", show);
    show();
  }

  /** Make a table sort by a column when its heading is pressed: as numbers where they are, else as text. */
  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    const number = (text) => Number(text.replace(/^[#±$ ]+|[,%]| m?s$/g, "")) * (/\d s$/.test(text) ? 1000 : 1);
    heads.forEach((head, column) => {
      const button = make("button", { type: "button", textContent: head.textContent });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        const value = (element) => {
          const text = element.cells[column].textContent;
          if (text === "–") return undefined;
          return Number.isNaN(number(text)) ? text : number(text);
        };
        const way = down ? -1 : 1;
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const [one, other] = [value(a), value(b)];
          return way * (typeof one === typeof other ? compare(one, other, way) : compare(one && String(one), other && String(other), way));
        });
        table.tBodies[0].append(...rows);
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
      });
    });
  }

  document.documentElement.classList.add("scripted");
  document.querySelectorAll("table.cells").forEach(sortable);
  scoreChoice();
  if (browser) {
    build();
    refresh();
    (window.requestIdleCallback ?? setTimeout)(() => { if (!messageTexts) prepareSearch(); });
    errorButtons();
  }
})();
