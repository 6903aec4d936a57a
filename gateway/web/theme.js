// Light or dark before the first paint: the system's choice until the visitor makes one.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  // Browsers may forbid storage: then the choice holds for this visit.
  function storage(use) {
    try {
      return use(localStorage);
    } catch {
      return null;
    }
  }

  const saved = storage((store) => store.getItem("theme"));
  if (saved === "light" || saved === "dark") root.dataset.theme = saved;

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => {
      button.setAttribute("aria-pressed", String(isDark()));
      document.dispatchEvent(new Event("themechange"));
    };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      storage((store) => store.setItem("theme", root.dataset.theme));
      show();
    });
    system.addEventListener("change", show);
    show();
  });
})();
