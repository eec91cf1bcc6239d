// A matrix of classes: cells are chosen by mouse or arrow keys.
const SHADES = ["#f7fbff", "#d6e6f4", "#abcfe5", "#6aaed6", "#2f79b5", "#105ba4", "#08306b"];
const AGAINST = ["#fff7ec", "#fdd9b4", "#f4a466", "#d9722d", "#a04a0e"]; // below 0: another colour, and a minus sign

function shade(value) {
  const scale = value < 0 ? AGAINST : SHADES;
  return Math.min(Math.round(Math.abs(value) * (scale.length - 1)), scale.length - 1);
}

/** Two decimals without the zero before them, and a true minus. */
function number(value) {
  const shown = Math.abs(value).toFixed(2);
  return `${value < 0 && Number(shown) ? "−" : ""}${shown.replace(/^0/, "")}`;
}

export default panel((body, act) => {
  const kinds = h("div", { class: "nadkit-row", role: "group", "aria-label": "what the matrix shows" });
  const stage = h("div", { class: "nadkit-scroll" });
  const pair = h("div", { class: "nadkit-pair" });
  body.append(kinds, stage, pair);
  let cells = [], drawn = "", current = null;

  const go = (row, column) => {
    const next = cells[row]?.[column];
    if (!next) return;
    rove(current ? [current] : [], null);
    current = next;
    set(next, "tabindex", 0);
    next.focus({ preventScroll: true });
  };
  stage.addEventListener("keydown", (event) => {
    const cell = event.target.closest?.("[data-cell]");
    if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
    const [row, column] = cell.dataset.cell.split(",").map(Number);
    const way = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key];
    if (way) go(row + way[0], column + way[1]);
    else if (event.key === "Home") go(row, 0);
    else if (event.key === "End") go(row, cells[row].length - 1);
    else if (["Enter", " "].includes(event.key)) cell.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    else return;
    event.preventDefault();
  });
  stage.addEventListener("click", (event) => {
    const cell = event.target.closest("[data-cell]");
    if (!cell) return;
    const [row, column] = cell.dataset.cell.split(",").map(Number);
    go(row, column);
    act("pair", [state_.rows[row], state_.columns[column]]);
  });
  let state_ = {};

  const build = (state) => {
    const size = Math.max(14, Math.min(34, Math.floor(560 / Math.max(state.columns.length, 1))));
    const left = 8 + 7 * Math.min(18, Math.max(0, ...state.rows.map((name) => name.length)));
    const top = 8 + 6 * Math.min(18, Math.max(0, ...state.columns.map((name) => name.length)));
    const brief = (name) => (name.length > 18 ? `${name.slice(0, 17)}…` : name);
    const svg = h("svg:svg", {
      class: "nadkit-matrix", role: "grid", "aria-label": "", width: left + size * state.columns.length + 60,
      height: top + size * state.rows.length + 4,
    });
    svg.append(h("svg:g", { role: "row" }, state.columns.map((name, c) => h("svg:text", {
      role: "columnheader", transform: `translate(${left + (c + 0.65) * size} ${top - 6}) rotate(-45)`, class: "nadkit-name",
    }, brief(name)))));
    cells = state.rows.map((name, r) => {
      const row = h("svg:g", { role: "row" });
      row.append(h("svg:text", { role: "rowheader", x: left - 6, y: top + (r + 0.65) * size, "text-anchor": "end", class: "nadkit-name" }, brief(name)));
      const made = state.columns.map((other, c) => {
        const cell = h("svg:g", { role: "gridcell", tabindex: -1, "data-cell": `${r},${c}`, "data-key": `cell-${r},${c}` },
          h("svg:rect", { x: left + c * size, y: top + r * size, width: size - 1, height: size - 1 }),
          h("svg:text", { x: left + (c + 0.5) * size, y: top + (r + 0.65) * size, "text-anchor": "middle" }));
        row.append(cell);
        return cell;
      });
      svg.append(row);
      return made;
    });
    stage.replaceChildren(...(state.rows.length ? [svg] : [])); // a grid of nothing is no grid
    return size;
  };

  let size = 30;
  return (state) => {
    state_ = state;
    kinds.replaceChildren(...state.kinds.map(([kind, words]) => button(words, () => act("matrix", kind), { "aria-pressed": String(kind === state.kind), "data-key": `kind-${kind}` })),
      ...(state.turns ?? []).map(([way, words]) => button(words, () => act("turn", way), { "data-key": `turn-${way}` })));
    const shape = JSON.stringify([state.rows, state.columns]);
    if (shape !== drawn) { size = build(state); drawn = shape; current = null; }
    const numbers = size >= 26;
    state.values.forEach((row, r) => row.forEach((value, c) => {
      const cell = cells[r][c], [box, words] = cell.children;
      const step = value === null ? null : shade(value);
      const dark = step !== null && step >= 4;
      set(box, "fill", value === null ? "none" : (value < 0 ? AGAINST : SHADES)[step]);
      text(words, value === null || !numbers ? "" : number(value));
      set(words, "class", dark ? "nadkit-light" : "nadkit-dark");
      const chosen = state.rows[r] === state.task && state.columns[c] === state.other_task;
      set(cell, "class", chosen ? "nadkit-chosen" : null);
      set(cell, "aria-selected", chosen ? "true" : "false");
      set(cell, "aria-label", `${state.rows[r]}, ${state.columns[c]}: ${value === null ? "no value" : value.toFixed(2)}`);
      if (chosen && !stage.contains(stage.getRootNode().activeElement)) { if (current) set(current, "tabindex", -1); current = cell; }
    }));
    current ??= cells[0]?.[0] ?? null;
    if (current) set(current, "tabindex", 0);
    const grid = stage.querySelector("svg");
    if (grid) set(grid, "aria-label", state.summary);
    pair.replaceChildren(...state.pair.map((line) => h("p", {}, line)),
      ...(state.units?.length ? [h("p", { class: "nadkit-chips" }, state.units.map(([name, words]) => button(name, () => act("unit", name), { title: words, "data-key": `unit-${name}`, "aria-label": `${name}: ${words}` })))] : []));
  };
});
