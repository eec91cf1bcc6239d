// A stand-in for Jupyter: mounts an anywidget module on a fake model in an otherwise empty page.
// Bytes travel as {$bytes: base64}; the module sees them as DataView, as in Jupyter.
(() => {
  const decode = (x) => {
    if (Array.isArray(x)) return x.map(decode);
    if (x === null || typeof x !== "object") return x;
    if ("$bytes" in x) return new DataView(Uint8Array.from(atob(x.$bytes), (c) => c.charCodeAt(0)).buffer);
    return Object.fromEntries(Object.entries(x).map(([k, v]) => [k, decode(v)]));
  };
  const bytes = (x) =>
    x instanceof ArrayBuffer ? new Uint8Array(x) : new Uint8Array(x.buffer, x.byteOffset, x.byteLength);
  const encode = (x) => {
    if (x instanceof ArrayBuffer || ArrayBuffer.isView(x))
      return { $bytes: btoa(Array.from(bytes(x), (c) => String.fromCharCode(c)).join("")) };
    if (Array.isArray(x)) return x.map(encode);
    if (x === null || typeof x !== "object") return x ?? null;
    return Object.fromEntries(Object.entries(x).map(([k, v]) => [k, encode(v)]));
  };
  const same = (a, b) => JSON.stringify(encode(a)) === JSON.stringify(encode(b));

  class FakeModel {
    constructor(state) {
      this.state = state;
      this.heard = []; // [event, callback, context]
      this.changing = this.pending = false;
      this.unsaved = {};
      this.saved = []; // what each save_changes told Python
      this.sent = []; // custom messages to Python
      this.widget_manager = { get_model: () => Promise.reject(new Error("there is no other widget here")) };
    }
    get(name) {
      return this.state[name];
    }
    set(name, value) {
      const changes = typeof name === "object" ? name : { [name]: value };
      this.change(changes);
      Object.assign(this.unsaved, changes);
    }
    // As Backbone does it: all values first, then an event for each that is new, at the end one for them
    // all, those that listeners set in between included.
    change(changes) {
      const names = Object.keys(changes).filter((name) => !same(this.state[name], changes[name]));
      const outermost = !this.changing;
      this.changing = true;
      this.pending ||= names.length > 0;
      Object.assign(this.state, changes);
      for (const name of names) this.trigger(`change:${name}`, this, changes[name], {});
      if (!outermost) return;
      while (this.pending) {
        this.pending = false;
        this.trigger("change", this, {});
      }
      this.changing = false;
    }
    save_changes() {
      this.saved.push(encode(this.unsaved));
      this.unsaved = {};
    }
    send(content, _callbacks, buffers = []) {
      this.sent.push(encode({ content, buffers }));
    }
    on(events, callback, context) {
      for (const event of events.split(/\s+/)) this.heard.push([event, callback, context]);
    }
    off(events, callback, context) {
      const named = events?.split(/\s+/);
      this.heard = this.heard.filter(
        ([e, f, c]) => (named && !named.includes(e)) || (callback && f !== callback) || (context && c !== context),
      );
    }
    trigger(event, ...values) {
      for (const [e, f, c] of [...this.heard]) if (e === event) f.apply(c ?? this, values);
    }
  }

  let widget, model;
  const leaving = []; // what undoes each view, and the widget
  const experimental = { invoke: () => Promise.reject(new Error("there is no Python here")) };
  const undo = (controller, cleanup) =>
    leaving.unshift(async () => {
      controller.abort();
      await cleanup?.();
    });

  window.harness = {
    async mount(esm, state) {
      const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
      const { default: made } = await import(url);
      widget = typeof made === "function" ? await made() : made;
      model = new FakeModel(decode(state));
      const controller = new AbortController();
      undo(controller, await widget.initialize?.({ model, signal: controller.signal, experimental }));
      await this.show();
    },
    async show() {
      const el = document.getElementById("root").appendChild(document.createElement("div"));
      const controller = new AbortController();
      undo(controller, await widget.render({ model, el, signal: controller.signal, experimental }));
    },
    async cleanup() {
      for (const leave of leaving.splice(0)) await leave();
    },
    get: (name) => encode(model.get(name)),
    put: (changes) => model.change(decode(changes)),
    receive: (content, buffers) => model.trigger("msg:custom", decode(content), decode(buffers)),
    trigger: (event, values) => model.trigger(event, ...decode(values)),
    saved: () => model.saved,
    sent: () => model.sent,
    listeners: () => model.heard.map(([event]) => event),
  };
})();
