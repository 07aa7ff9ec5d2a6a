// Keeps the page up to date: the server says that something changed, the page is fetched again, and its content takes
// the place of the old one. Without this script every page works as it is.
"use strict";
(() => {
  const root = document.documentElement;
  const main = document.querySelector("main");
  const button = document.getElementById("live");
  const said = document.getElementById("said");
  if (!main || !button) return;
  let on = true;
  let busy = false;
  let source = null;
  let timer = null;

  // What somebody types or reads opened must not vanish under their hands.
  const isChanged = (field) => {
    if (field.type === "checkbox") return field.checked !== field.defaultChecked;
    if (field.tagName !== "SELECT") return field.value !== field.defaultValue;
    return field.selectedIndex !== Math.max(0, [...field.options].findIndex((option) => option.defaultSelected));
  };
  const inUse = () =>
    [...main.querySelectorAll("input, textarea, select")].some(
      (field) => field === document.activeElement || isChanged(field));

  const selecting = () => {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && main.contains(selection.anchorNode);
  };

  const summary = (place) => (place.querySelector("#summary, .calm, h1") || {}).textContent || "";

  // Old numbers must look old.
  const stale = (is) => {
    root.classList.toggle("stale", is);
    const place = main.querySelector(".asof");
    if (is && place && !place.dataset.stale) {
      place.dataset.stale = "yes";
      place.append(", the dashboard is unreachable");
      said.textContent = "The dashboard is unreachable. What you see is old.";
    }
  };

  const refresh = async () => {
    if (!on || busy || document.hidden || inUse() || selecting()) return;
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("main");
      if (!fresh || !answer.ok || inUse() || selecting()) return;
      const open = [...main.querySelectorAll("details[open][id]")].map((it) => it.id);
      const focused = document.activeElement;
      const path = focused && main.contains(focused) ? place(focused) : null;
      const before = summary(main);
      main.replaceChildren(...fresh.childNodes);
      document.title = page.title;
      for (const id of open) {
        const it = document.getElementById(id);
        if (it) it.open = true;
      }
      if (path) (find(path) || main).focus({ preventScroll: true });
      if (summary(main) !== before) said.textContent = summary(main);
      stale(false);
    } catch {
      stale(true);
    } finally {
      busy = false;
    }
  };

  // Where an element is, to find the one that takes its place.
  const place = (element) => {
    const path = [];
    for (let it = element; it !== main; it = it.parentElement) path.unshift([...it.parentElement.children].indexOf(it));
    return path;
  };
  const find = (path) => path.reduce((it, n) => it && it.children[n], main);

  const watch = () => {
    source = new EventSource((root.dataset.path || "") + "/live");
    source.addEventListener("change", refresh);
    source.addEventListener("time", refresh);
    source.addEventListener("error", () => {
      // closed: the server is full, or the login is over; else the browser tries again by itself
      if (source.readyState === EventSource.CLOSED) timer = timer || setInterval(refresh, 30000);
      refresh();
    });
  };

  const show = () => {
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "Live" : "Paused";
  };
  button.addEventListener("click", () => {
    on = !on;
    show();
    refresh();
  });
  document.addEventListener("visibilitychange", refresh);
  button.hidden = false;
  watch();
})();
