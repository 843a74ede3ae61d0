"use strict";
// Asks whether something has changed, and puts it in its place; what is folded open stays open.
const main = document.querySelector("main");
const live = document.querySelector("#live");
let mark = null;

async function look() {
  try {
    const answer = await fetch("runs", { headers: mark ? { "If-None-Match": mark } : {}, cache: "no-store" });
    if (answer.status === 200) {
      mark = answer.headers.get("ETag");
      const folded = new Map([...main.querySelectorAll("details")].map((d) => [d.id, d.open]));
      main.innerHTML = await answer.text();
      for (const d of main.querySelectorAll("details")) {
        if (folded.has(d.id)) d.open = folded.get(d.id);
      }
    }
    live.textContent = "live";
    live.className = "";
  } catch {
    live.textContent = "the dashboard has ended: this is what was last";
    live.className = "gone";
  }
}

main.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#run-"]');
  if (link) document.getElementById(link.hash.slice(1)).open = true;
});
look();
setInterval(look, 2000);
