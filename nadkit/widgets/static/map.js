// The map of a network: layers as columns, units as marks, links of the chosen unit as curves.
const [PITCH, ROWS, TOP, GAP, LEAST] = [15, 18, 58, 16, 56];
const HEIGHT = TOP + ROWS * PITCH + 24;
// What a unit is to the class and the one beside it: shape and colour both say it.
const MARKS = [
  { name: "removed", d: "M-1.6 0a1.6 1.6 0 1 0 3.2 0a1.6 1.6 0 1 0 -3.2 0" },
  { name: "kept", d: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0" },
  { name: "exclusive", d: "M0 -6.4L6.4 0L0 6.4L-6.4 0Z" },
  { name: "other", d: "M0 -5.8L5.6 4.4L-5.6 4.4Z" },
  { name: "both", d: "M-4.6 -4.6H4.6V4.6H-4.6Z" },
];

/** Units of a column that are drawn one by one. */
const size = (column) => (column.ids ? column.ids.length : column.units);

/** A mark for a legend. */
const sample = (kind, closed) => h("svg:svg", { width: 16, height: 16, viewBox: "-8 -8 16 16", "aria-hidden": "true" },
  h("svg:path", { d: MARKS[kind].d, class: `nadkit-mark nadkit-${MARKS[kind].name}${closed ? " nadkit-closed" : ""}` }));

/** Where columns and units stand; it depends on the network and on what is open, not on the class. */
function layout(columns) {
  let x = 8;
  return columns.map((column) => {
    const across = column.open ? Math.ceil(size(column) / ROWS) : 1;
    const width = Math.max(column.end ? 34 : LEAST, across * PITCH);
    const left = x + (width - across * PITCH) / 2 + PITCH / 2;
    const place = { x, width, middle: x + width / 2, at: (unit) => [left + Math.floor(unit / ROWS) * PITCH, TOP + 8 + (unit % ROWS) * PITCH] };
    x += width + GAP;
    return place;
  });
}

export default panel((body, act) => {
  const drawing = h("svg:g"), lines = h("svg:g", { class: "nadkit-links" }), units = h("svg:g"), heads = h("svg:g");
  drawing.append(lines, heads, units);
  const svg = h("svg:svg", { class: "nadkit-plot", role: "group", "aria-label": "units by layer" }, drawing);
  const tip = h("div", { class: "nadkit-tip", "aria-hidden": "true", hidden: true });
  const legend = h("p", { class: "nadkit-legend" });
  const view = { x: 0, y: 0, k: 1 };
  let width = 600, places = [], columns = [], drawn = "", marks = new Map(), headers = [], current = null, state_ = {};

  const look = () => set(drawing, "transform", `translate(${view.x} ${view.y}) scale(${view.k})`);
  const zoom = (factor, x = width / 2, y = HEIGHT / 2) => {
    const k = Math.min(Math.max(view.k * factor, 1), 12);
    view.x = x - ((x - view.x) * k) / view.k;
    view.y = y - ((y - view.y) * k) / view.k;
    view.k = k;
    view.x = Math.min(0, Math.max(view.x, width * (1 - k)));
    view.y = Math.min(0, Math.max(view.y, HEIGHT * (1 - k)));
    look();
  };
  /** Move a zoomed map so that a mark which gets the focus is on it. */
  const reveal = (node) => {
    const [column, unit] = node.dataset.at.split("/");
    const [x, y] = unit === "" ? [places[column].middle, TOP / 2] : places[column].at(Number(unit));
    const inside = (at, size) => at > 12 && at < size - 12;
    if (!inside(view.x + x * view.k, width)) view.x = width / 2 - x * view.k;
    if (!inside(view.y + y * view.k, HEIGHT)) view.y = HEIGHT / 2 - y * view.k;
    zoom(1);
  };
  const reset = () => { Object.assign(view, { x: 0, y: 0, k: 1 }); look(); };
  const tools = h("p", { class: "nadkit-tools" },
    button("+", () => zoom(1.5), { "aria-label": "zoom in", "data-key": "zoom-in" }),
    button("−", () => zoom(1 / 1.5), { "aria-label": "zoom out", "data-key": "zoom-out" }),
    button("whole map", reset, { "data-key": "zoom-reset" }));
  body.append(h("div", { class: "nadkit-stage" }, svg, tip), tools, legend);

  /** From the page to the drawing's own units. */
  const point = (event) => {
    const box = svg.getBoundingClientRect();
    const scale = Math.min(box.width / width, box.height / HEIGHT) || 1;
    return [(event.clientX - box.left - (box.width - width * scale) / 2) / scale, (event.clientY - box.top - (box.height - HEIGHT * scale) / 2) / scale];
  };
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls as it always does
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), ...point(event));
  }, { passive: false });
  let drag = null;
  svg.addEventListener("pointerdown", (event) => { drag = { from: point(event), x: view.x, y: view.y, moved: false }; });
  svg.addEventListener("pointermove", (event) => {
    if (!drag || !event.buttons) { drag = null; return; }
    const [x, y] = point(event);
    if (Math.hypot(x - drag.from[0], y - drag.from[1]) < 4 && !drag.moved) return;
    drag.moved = true;
    [view.x, view.y] = [drag.x + x - drag.from[0], drag.y + y - drag.from[1]];
    zoom(1);
  });
  // A drag that ends on a mark moves the map and chooses nothing.
  svg.addEventListener("click", (event) => { if (drag?.moved) event.stopPropagation(); drag = null; }, true);

  const nameOf = (column, unit) => `${column.name}/${column.ids ? column.ids[unit] : unit}`;
  const describe = (column, unit) => {
    const c = columns[column];
    if (c.end) return c.name;
    const kind = Number(c.marks[unit]), known = [nameOf(c, unit)];
    known.push(c.scores ? `score ${(c.scores[unit] / 100).toFixed(2)}` : "");
    known.push([`removed by ${state_.task}`, `kept by ${state_.task}`, `kept by ${state_.task} alone`, `kept by ${state_.other_task}, not by ${state_.task}`, `kept by both`][kind]);
    known.push(c.tasks ? `kept by ${c.tasks[unit]} of ${state_.n_tasks}` : "");
    known.push(c.carried?.[unit] >= 0 ? `carries ${(c.carried[unit] / 10).toFixed(1)} % of the logit's input` : "");
    known.push(c.on[unit] === "1" ? "" : `closed (${state_.condition})`);
    return known.filter(Boolean).join(", ");
  };
  const showTip = (node, words) => {
    const stage = svg.parentNode.getBoundingClientRect(), box = node.getBoundingClientRect();
    text(tip, words);
    tip.hidden = false;
    tip.style.left = `${Math.min(Math.max(box.left - stage.left, 0), stage.width - 240)}px`;
    tip.style.top = `${box.bottom - stage.top + 6}px`;
  };
  const hideTip = () => { tip.hidden = true; };
  for (const name of ["pointerover", "focusin"]) svg.addEventListener(name, (event) => {
    const node = event.target.closest("[data-key]");
    if (node) showTip(node, node.getAttribute("aria-label"));
    else hideTip();
  });
  for (const name of ["pointerleave", "focusout"]) svg.addEventListener(name, hideTip);
  svg.addEventListener("click", (event) => {
    const node = event.target.closest("[data-key]");
    if (!node) return;
    choose(node);
    node.focus({ preventScroll: true });
  });
  const choose = (node) => {
    const [column, unit] = node.dataset.at.split("/").map((one) => parseInt(one, 10));
    if (Number.isNaN(unit)) act("layer", columns[column].name);
    else act("unit", nameOf(columns[column], unit));
  };
  svg.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // zooming the page, not the map
    const node = event.target.closest?.("[data-key]");
    if (["+", "=", "-", "0"].includes(event.key)) {
      if (event.key === "0") reset();
      else zoom(event.key === "-" ? 1 / 1.5 : 1.5);
    } else if (node && ["Enter", " "].includes(event.key)) choose(node);
    else if (node && event.key.startsWith("Arrow")) step(node, event.key);
    else return;
    event.preventDefault();
  });
  /** The next mark that is not merely removed: down and up its column, left and right to the nearest one. */
  const step = (node, key) => {
    const [column, unit] = node.dataset.at.split("/").map((one) => parseInt(one, 10));
    const side = { ArrowRight: 1, ArrowLeft: -1 }[key];
    let next = null;
    if (Number.isNaN(unit)) next = headers[column + (side ?? 0)];
    else if (!side) {
      const way = key === "ArrowDown" ? 1 : -1;
      for (let u = unit + way; u >= 0 && u < size(columns[column]); u += way) {
        next = marks.get(`${column}/${u}`);
        if (next && columns[column].marks[u] !== "0") break;
        next = null;
      }
    } else {
      const [, y] = places[column].at(unit);
      for (let c = column + side; c >= 0 && c < columns.length && !next; c += side) {
        if (!columns[c].open || columns[c].end) continue;
        let best = Infinity;
        for (let u = 0; u < size(columns[c]); u++) {
          const far = Math.abs(places[c].at(u)[1] - y) + Math.floor(u / ROWS) * (side > 0 ? 1 : -1) * 0.01;
          if (columns[c].marks[u] !== "0" && far < best) [best, next] = [far, marks.get(`${c}/${u}`)];
        }
      }
    }
    if (!next) return;
    reveal(next);
    if (!Number.isNaN(unit)) { rove(current ? [current] : [], null); current = next; set(current, "tabindex", 0); }
    next.focus({ preventScroll: true });
  };

  /** New elements, when other layers are open. */
  const build = () => {
    places = layout(columns);
    const last = places.at(-1);
    width = Math.max(last ? last.x + last.width + 8 : 0, 420);
    set(svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
    marks = new Map();
    headers = [];
    units.replaceChildren();
    heads.replaceChildren();
    columns.forEach((column, c) => {
      const { x, width: wide, middle } = places[c];
      const short = column.label.length > 10 ? `…${column.label.slice(-9)}` : column.label;
      const head = h("svg:g", { class: "nadkit-head", "data-at": `${c}/` , "data-key": `layer-${column.name}`, role: column.end ? "img" : "button", tabindex: column.end ? null : 0 },
        h("svg:rect", { x, y: 2, width: wide, height: 40, rx: 4 }),
        h("svg:text", { x: middle, y: 18, "text-anchor": "middle" }, short),
        h("svg:text", { x: middle, y: 34, "text-anchor": "middle", class: "nadkit-count" }));
      if (column.end) head.removeAttribute("data-at");
      else headers[c] = head;
      heads.append(head);
      if (!column.open) {
        head.append(h("svg:rect", { class: "nadkit-trough", x: middle - 9, y: TOP, width: 18, height: ROWS * PITCH }),
          h("svg:rect", { class: "nadkit-bar", x: middle - 9, width: 18 }));
        return;
      }
      for (let u = 0; u < size(column); u++) {
        const [left, top] = places[c].at(u);
        const mark = h("svg:path", { transform: `translate(${left} ${top})`, "data-at": `${c}/${u}`, "data-key": nameOf(column, u), role: "button", tabindex: -1 });
        if (column.end) { mark.removeAttribute("data-at"); set(mark, "role", "img"); }
        marks.set(`${c}/${u}`, mark);
        units.append(mark);
      }
    });
  };

  const link = ([from, source, to, target, share, sign]) => {
    const end = (c, u) => (columns[c].open ? places[c].at(u) : [places[c].middle, TOP + ROWS * PITCH / 2]);
    const [x1, y1] = end(from, source), [x2, y2] = end(to, target), bend = (x2 - x1) / 2;
    return h("svg:path", { d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`, class: sign < 0 ? "nadkit-takes" : "nadkit-adds", "stroke-width": (1 + 5 * share).toFixed(2) });
  };

  return (state) => {
    state_ = state;
    columns = state.columns;
    const shape = columns.map((c) => `${c.name}:${c.units}:${c.open}:${c.ids}`).join();
    if (shape !== drawn) { build(); drawn = shape; }
    let first = null;
    columns.forEach((column, c) => {
      const head = heads.children[c];
      head.classList.toggle("nadkit-on", column.name === state.layer);
      text(head.querySelector(".nadkit-count"), column.end ? "" : `${column.kept}/${column.units}`);
      set(head, "aria-label", column.end ? column.name : `layer ${column.name}: ${column.kept} of ${column.units} units kept${column.hint ? `, ${column.hint}` : ""}`);
      if (!column.end) set(head, "aria-pressed", column.name === state.layer ? "true" : "false");
      const bar = head.querySelector(".nadkit-bar");
      if (bar) {
        const high = (ROWS * PITCH * column.kept) / Math.max(column.units, 1);
        set(bar, "y", TOP + ROWS * PITCH - high);
        set(bar, "height", high);
      }
      if (!column.open) return;
      for (let u = 0; u < size(column); u++) {
        const mark = marks.get(`${c}/${u}`), kind = Number(column.marks[u]);
        const chosen = nameOf(column, u) === state.unit;
        set(mark, "d", MARKS[kind].d);
        set(mark, "class", `nadkit-mark nadkit-${MARKS[kind].name}${column.on[u] === "1" ? "" : " nadkit-closed"}${chosen ? " nadkit-chosen" : ""}`);
        set(mark, "aria-label", describe(c, u));
        if (column.end) continue;
        set(mark, "aria-pressed", chosen ? "true" : "false");
        if (chosen || (!first && kind)) first = mark;
      }
    });
    if (!current || !current.isConnected) { current = first ?? marks.get("1/0") ?? null; }
    for (const mark of units.children) if (mark.tabIndex === 0 && mark !== current) set(mark, "tabindex", -1);
    if (current) set(current, "tabindex", 0);
    lines.replaceChildren(...(state.links ?? []).map(link));
    legend.replaceChildren(...state.legend.map(([kind, words, closed]) => h("span", {}, sample(kind, closed), words)),
      ...(state.links?.length ? [h("span", {}, h("span", { class: "nadkit-stroke nadkit-adds" }), "link that adds"), h("span", {}, h("span", { class: "nadkit-stroke nadkit-takes" }), "link that takes away")] : []));
    set(svg, "aria-label", state.summary);
  };
});
