// Test pictures of the class, and what the chosen one does.
export default panel((body, act) => {
  const strips = h("div", {}), chosen = h("div", {});
  body.append(strips, chosen);
  let drawn = null;
  const strip = (words, found, image) => h("div", {}, h("h4", {}, words), found.length
    ? h("div", { class: "nadkit-gallery" }, found.map((one) => h("button", {
      type: "button", class: "nadkit-thumb", "aria-pressed": String(one.index === image), "data-key": `image-${one.index}`,
      onclick: () => act("image", one.index), "aria-label": one.alt,
    }, picture({ ...one, alt: "" }, 56), one.caption ? h("span", {}, one.caption) : null)))
    : h("p", {}, "none"));
  const bars = (rows) => h("table", { class: "nadkit-table" }, h("caption", {}, "probability of each class"),
    h("thead", {}, h("tr", {}, ["class", ...rows.heads].map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows.rows.map(([name, ...shares]) => h("tr", {}, h("th", { scope: "row" }, name), shares.map((share) => h("td", {},
      h("span", { class: "nadkit-fill", style: `width:${60 * share}px` }), share.toFixed(2)))))));
  return (state) => {
    // Pictures are sent once for a class, and only those that are chosen change.
    const key = JSON.stringify([state.strips.map(([words, found]) => [words, found.map((one) => one.index)]), state.image]);
    if (key !== drawn) {
      strips.replaceChildren(...state.strips.map(([words, found]) => strip(words, found, state.image)));
      drawn = key;
    }
    const one = state.chosen;
    chosen.replaceChildren(...(one ? [
      h("h4", {}, one.title),
      h("div", { class: "nadkit-columns" },
        h("figure", {}, picture(one.picture, 140), h("figcaption", {}, one.picture.caption)),
        one.scores ? bars(one.scores) : null),
      one.maps?.length ? h("h4", {}, one.maps_title) : null,
      h("div", { class: "nadkit-gallery" }, (one.maps ?? []).map((map) => h("figure", {}, heat(map.rows, map.alt, 72), h("figcaption", {}, map.name)))),
      one.why ? h("div", {}, h("h4", {}, one.why_title), h("p", { class: "nadkit-sentence" }, one.why),
        one.units?.length ? h("p", { class: "nadkit-chips" }, one.units.map(([name, words]) => button(name, () => act("unit", name), { "data-key": `flip-${name}`, "aria-label": `${name}: ${words}`, title: words }))) : null,
        one.other ? h("p", {}, button(`compare ${one.task} with ${one.other} on the map`, () => act("pair", [one.task, one.other]), { "data-key": "compare" })) : null) : null,
    ].filter(Boolean) : []));
  };
});
