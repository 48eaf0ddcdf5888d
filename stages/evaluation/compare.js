// Shows every run's sample of the epoch and temperature that are chosen.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const { epochs, temperatures, samples } = read("data"), charts = read("charts");
const slider = document.getElementById("epoch"), articles = [...document.querySelectorAll("#runs article")];
const views = await Promise.all([...document.querySelectorAll(".chart")].map((place, number) =>
  window.vegaEmbed(place, charts[number], { renderer: "svg", actions: false, ast: true }).then(({ view }) => view)));

function show() {
  const epoch = epochs[Number(slider.value)];
  const choice = Number(new FormData(document.forms[0]).get("temperature")), temperature = temperatures[choice];
  slider.setAttribute("aria-valuetext", `epoch ${epoch}`);
  document.getElementById("about").textContent = `epoch ${epoch}`;
  for (const [number, article] of articles.entries()) {
    const sample = samples[number][`${epoch} ${choice}`];
    article.querySelector(".prompt").textContent = sample?.prompt ?? "";
    article.querySelector(".text").textContent = sample?.text ?? "no sample of this epoch at this temperature";
    for (const place of article.querySelectorAll("[data-metric]")) {
      const value = sample?.[place.dataset.metric];
      place.textContent = sample === undefined ? "–"
        : place.dataset.metric === "longest_copy" ? `${value} characters` : `${(value * 100).toFixed(0)} %`;
    }
  }
  for (const view of views) {
    view.signal("epoch", epoch);
    if (view.getState().signals.temperature !== undefined) view.signal("temperature", temperature);
    view.runAsync();
  }
}
document.forms[0].addEventListener("input", show);
show();
document.documentElement.dataset.ready = "true";
