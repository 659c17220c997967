"use strict";
// Follows /events, keeps times running, opens a guest on a click. All HTML comes escaped from the daemon.
(() => {
  const table = document.getElementById("guests");
  const link = document.getElementById("link");
  const span = (seconds) => {
    const left = Math.max(0, Math.floor(seconds));
    for (const [size, unit, small, part] of [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]]) {
      const few = Math.floor((left % size) / small);
      if (left >= size) return `${Math.floor(left / size)}${unit}${few ? few + part : ""}`;
    }
    return `${left}s`;
  };
  const bodies = () => Array.from(table.tBodies);
  const body = (name) => bodies().find((found) => found.dataset.vm === name);
  const parsed = (html) => {
    const holder = document.createElement("table");
    holder.innerHTML = html;
    return holder.tBodies[0];
  };

  const show = (name, html) => {
    const fresh = parsed(html);
    const old = body(name);
    if (old) {
      old.replaceChild(fresh.rows[0], old.rows[0]);
      if (old.rows.length > 1) fill(old);
    } else {
      table.insertBefore(fresh, bodies().find((found) => found.dataset.vm > name) || null);
    }
  };

  const fill = async (group) => {
    try {
      const answer = await fetch(`/vm/${encodeURIComponent(group.dataset.vm)}?part=detail`);
      if (!answer.ok || group.rows.length < 2) return;
      const box = group.rows[1].querySelector(".detail");
      const text = await answer.text();
      if (box.dataset.text === text) return;
      box.dataset.text = text;
      box.innerHTML = text;
      for (const console of box.querySelectorAll("pre")) console.scrollTop = console.scrollHeight;
    } catch { /* the daemon is away; the next change fills it again */ }
  };

  table.addEventListener("click", (click) => {
    const row = click.target.closest("tr.vm");
    if (!row || click.ctrlKey || click.metaKey || click.shiftKey || window.getSelection().type === "Range") return;
    click.preventDefault();
    const group = row.parentElement;
    if (group.rows.length > 1) {
      group.deleteRow(1);
      return;
    }
    const cell = group.insertRow().insertCell();
    cell.className = "open";
    cell.colSpan = row.cells.length;
    cell.appendChild(document.createElement("div")).className = "detail";
    fill(group);
  });

  let skew = 0;
  setInterval(() => {
    if (document.hidden) return;
    const now = Date.now() / 1000 + skew;
    for (const time of table.querySelectorAll("time[data-since]")) time.textContent = span(now - Number(time.dataset.since));
  }, 1000);
  setInterval(() => {
    if (!document.hidden) bodies().filter((group) => group.rows.length > 1).forEach(fill);
  }, 3000);

  const events = new EventSource(`/events?since=${encodeURIComponent(table.dataset.stamp)}`);
  events.onopen = () => { link.hidden = true; };
  events.onerror = () => { link.hidden = false; link.textContent = "bhyved does not answer: what is shown may be old"; };
  events.addEventListener("reload", () => location.reload());
  events.addEventListener("guests", (event) => {
    const news = JSON.parse(event.data);
    skew = news.now - Date.now() / 1000;
    for (const name of news.gone) body(name)?.remove();
    for (const [name, html] of news.rows) show(name, html);
    document.getElementById("counts").innerHTML = news.counts;
    document.getElementById("none").hidden = bodies().length > 0;
  });
})();
