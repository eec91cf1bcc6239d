// What every panel of nadkit has in common; each file is put behind this one and ends with `export default`.
const SVG = "http://www.w3.org/2000/svg";

/** A new element: `h("svg:path", { d }, …kids)`; attributes of null or false are left out. */
function h(name, attributes = {}, ...kids) {
  const node = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else set(node, key, value);
  }
  if (name === "input" || name === "button") quiet(node);
  node.append(...kids.flat().filter((kid) => kid !== null && kid !== undefined && kid !== false));
  return node;
}

/** Keys typed here are no commands for notebook cells; Notebook 7 asks this of each element, not of a parent. */
const quiet = (node) => node.setAttribute("data-lm-suppress-shortcuts", "true");

/** Set an attribute, or take it off, only where it differs: a thousand marks are set at every change. */
function set(node, key, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(key);
  else if (node.getAttribute(key) !== String(value)) node.setAttribute(key, value === true ? "" : value);
  if (key === "tabindex" && value !== null) quiet(node);
}

function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

let serial = 0;
const newId = (name) => `nadkit-${name}-${Date.now().toString(36)}-${++serial}`;
const percent = (share) => `${Math.round(100 * share)} %`;
const many = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

/** Only one of many things can be reached by Tab; arrow keys go on from there. */
function rove(nodes, next) {
  for (const node of nodes) set(node, "tabindex", node === next ? 0 : -1);
}

/** A button of plain text. */
const button = (label, act, more = {}) => h("button", { type: "button", class: "nadkit-button", onclick: act, ...more }, label);

/** A picture that Python encoded, with an outline of where to look: box is left, top, width, height in shares. */
function picture(one, size) {
  const frame = h("span", { class: "nadkit-frame", style: `width:${size}px;height:${size}px` });
  frame.append(h("img", { src: one.src, alt: one.alt ?? "", width: size, height: size }));
  if (one.box) {
    const [left, top, width, height] = one.box.map((share) => `${100 * share}%`);
    frame.append(h("span", { class: "nadkit-outline", style: `left:${left};top:${top};width:${width};height:${height}` }));
  }
  return frame;
}

/** A map of numbers from 0 to 1 as a small canvas, yellow where it is high (cividis). */
const CIVIDIS = [[0, 32, 77], [55, 67, 108], [104, 106, 112], [151, 147, 118], [205, 190, 92], [255, 234, 70]];
function heat(rows, label, size) {
  const canvas = h("canvas", { width: rows[0].length, height: rows.length, role: "img", "aria-label": label, class: "nadkit-heat", style: `width:${size}px;height:${size}px` });
  const paint = canvas.getContext("2d");
  rows.forEach((row, y) => row.forEach((value, x) => {
    const at = Math.min(Math.max(value, 0), 1) * (CIVIDIS.length - 1);
    const low = Math.min(Math.floor(at), CIVIDIS.length - 2);
    const mixed = CIVIDIS[low].map((from, i) => Math.round(from + (at - low) * (CIVIDIS[low + 1][i] - from)));
    paint.fillStyle = `rgb(${mixed})`;
    paint.fillRect(x, y, 1, 1);
  }));
  return canvas;
}

/**
 * The frame of a panel: title, what is drawn, and a line that says what is being worked out or what went wrong.
 *
 * `make(body, act, model)` returns `draw(state)`. `act(name, value)` tells Python what the reader chose. Python
 * answers with a new `state`; where it says `need`, the panel asks for the work once it is seen and left alone.
 */
function panel(make) {
  return {
    render({ model, el }) {
      const heading = h("h3", { class: "nadkit-title", id: newId("title") });
      const body = h("div", { class: "nadkit-body" });
      const bar = h("progress", { class: "nadkit-progress", hidden: true, "aria-label": "progress" });
      const note = h("span", {});
      const status = h("p", { class: "nadkit-status", role: "status" }, bar, note);
      const error = h("p", { class: "nadkit-error", role: "alert", hidden: true });
      const root = h("section", { class: `nadkit nadkit-${model.get("kind")}`, "aria-labelledby": heading.id }, heading, body, error, status);
      el.append(root);
      // While something in an output has the focus, JupyterLab's command mode takes "b", "x", "d d" for cells.
      root.addEventListener("keydown", (event) => {
        if (!["Escape", "Tab"].includes(event.key)) event.stopPropagation();
      });

      let visible = false, timer = 0, clock = 0, asked = null, spoken = "", since = 0, sent = null, waiting = null;
      const push = () => {
        // The latest wish alone: a slider makes more of them than a kernel answers.
        if (waiting === null || sent !== null) return;
        [sent, waiting] = [waiting, null];
        model.send({ do: "set", ...sent });
        setTimeout(() => { if (sent !== null) { sent = null; push(); } }, 3000);
      };
      const act = (name, value) => { waiting = { name, value }; push(); };
      act.busy = () => sent !== null || waiting !== null;

      const draw = make(body, act, model);
      const ask = () => {
        clearTimeout(timer);
        const state = model.get("state");
        if (!state.need || !visible || asked === state.need) return;
        timer = setTimeout(() => { asked = state.need; model.send({ do: "work" }); }, 200);
      };
      const tick = (state) => {
        clearInterval(clock);
        const words = state.working ?? "";
        if (words !== spoken) [spoken, since] = [words, performance.now()];
        const say = () => {
          const seconds = Math.floor((performance.now() - since) / 1000);
          text(note, words ? `${words}${seconds ? ` ${seconds} s` : ""}` : state.note || "");
        };
        if (words) clock = setInterval(say, 1000);
        bar.hidden = !words;
        set(bar, "value", words && state.done ? state.done : null);
        say();
      };
      const update = () => {
        const state = model.get("state");
        const root_ = root.getRootNode();
        const key = root.contains(root_.activeElement) ? root_.activeElement.dataset?.key : undefined;
        text(heading, state.title ?? "");
        root.classList.toggle("nadkit-stale", Boolean(state.stale));
        set(body, "aria-busy", state.stale ? "true" : "false");
        // Python drops what was wanted with every other choice, so the same wish must be told again.
        if (!state.need || root.dataset.stamp !== (state.stamp ?? "")) asked = null;
        try {
          draw(state);
          error.hidden = !state.error;
          text(error, state.error ?? "");
        } catch (fault) {
          error.hidden = false;
          text(error, `This panel could not be drawn: ${fault}`);
        }
        if (key && root_.activeElement?.dataset?.key !== key) {
          root.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
        }
        tick(state);
        root.dataset.stamp = state.stamp ?? "";
        ask();
      };
      const watch = new IntersectionObserver((entries) => { visible = entries.some((one) => one.isIntersecting); ask(); });
      watch.observe(root);
      const told = (message) => {
        if (message.do === "progress" && !bar.hidden) set(bar, "value", message.done);
        if (message.do !== "done") return;
        sent = null;
        push();
        if (sent === null) update();
      };
      model.on("change:state", update);
      model.on("msg:custom", told);
      update();
      // A picture stands in for the widget where there is no kernel; here it is not needed.
      // By a rule and not by an attribute: JupyterLab makes outputs anew when they are scrolled back into view.
      if (model.get("still")) root.append(h("style", {}, `.nadkit-still-${model.get("still")} { display: none; }`));
      return () => {
        model.off("change:state", update);
        model.off("msg:custom", told);
        watch.disconnect();
        clearTimeout(timer);
        clearInterval(clock);
      };
    },
  };
}
