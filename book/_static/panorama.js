// Accessible names where the theme gives a control another name than the text it shows (WCAG 2.5.3).
window.addEventListener("load", () => {
  document.querySelectorAll("details.hide > summary, .search-button-field").forEach((control) => {
    control.removeAttribute("aria-label"); // its text names it
  });
  document.querySelectorAll(".theme-switch-button svg").forEach((icon) => {
    icon.querySelector("title")?.remove(); // all three modes would be read out
    icon.removeAttribute("aria-labelledby");
    icon.setAttribute("aria-hidden", "true");
  });
});
