// What keeping, removing and every control do to one class, as dots with intervals.
const [LEFT, WIDE, LINE] = [90, 290, 24];
const SHAPES = {
  whole: "M-1 -7H1V7H-1Z", kept: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0", removed: "M-5 -5L5 5M5 -5L-5 5",
  random: "M0 -6L6 0L0 6L-6 0Z", relabelled: "M0 -6L6 5L-6 5Z", shared: "M-5 -5H5V5H-5Z", untrained: "M0 6L6 -5L-6 -5Z",
};

export default panel((body, act) => {
  const kinds = h("div", { class: "nadkit-row", role: "group", "aria-label": "what is measured" });
  const plot = h("div", { class: "nadkit-scroll" });
  const words = h("p", { class: "nadkit-sentence" });
  body.append(kinds, plot, words);
  return (state) => {
    kinds.replaceChildren(...(state.metrics ?? []).map(([name, shown]) => button(shown, () => act("metric", name), { "aria-pressed": String(name === state.metric), "data-key": `metric-${name}` })));
    const rows = state.rows ?? [];
    const x = (value) => LEFT + WIDE * Math.min(Math.max(value, 0), 1);
    const chance = /accuracy|auroc/.test(state.metric ?? ""); // a half of recall is no chance
    const [wide, high] = [LEFT + WIDE + 140, LINE * rows.length + 30];
    const svg = h("svg:svg", { viewBox: `0 0 ${wide} ${high}`, style: `width:100%;max-width:${wide}px`, role: "img", "aria-label": state.summary ?? "", class: "nadkit-dots" });
    for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
      svg.append(h("svg:line", { x1: x(tick), x2: x(tick), y1: 0, y2: LINE * rows.length, class: tick === 0.5 && chance ? "nadkit-chance" : "nadkit-rule" }),
        h("svg:text", { x: x(tick), y: LINE * rows.length + 16, "text-anchor": "middle" }, String(tick)));
    }
    rows.forEach((row, i) => {
      const y = LINE * (i + 0.5);
      svg.append(h("svg:text", { x: LEFT - 10, y: y + 4, "text-anchor": "end", class: row.name === "kept" ? "nadkit-strong" : null }, row.name));
      if (row.value !== null) {
        svg.append(h("svg:line", { x1: x(row.low ?? row.value), x2: x(row.high ?? row.value), y1: y, y2: y, class: `nadkit-interval nadkit-is-${row.name}` }),
          h("svg:path", { d: SHAPES[row.name] ?? SHAPES.kept, transform: `translate(${x(row.value)} ${y})`, class: `nadkit-dot nadkit-is-${row.name}` }));
      }
      svg.append(h("svg:text", { x: LEFT + WIDE + 12, y: y + 4 }, row.text));
    });
    plot.replaceChildren(...(rows.length ? [svg] : []));
    text(words, state.sentence ?? "");
  };
});
