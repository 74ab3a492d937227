// Mends what the theme and docutils tell assistive technology (found by axe, WCAG 2 A and AA).
function mend() {
  // The text of these controls names them; a different aria-label hides it (WCAG 2.5.3).
  document.querySelectorAll("details.hide > summary, .search-button-field").forEach((control) => {
    control.removeAttribute("aria-label");
  });
  // All three modes of the switch would be read out. Font Awesome replaces each <i> by an <svg>.
  document.querySelectorAll(".theme-switch").forEach((icon) => {
    icon.querySelector("title")?.remove();
    icon.removeAttribute("title");
    icon.removeAttribute("aria-labelledby");
    icon.setAttribute("aria-hidden", "true");
  });
  // docutils gives bibliographies a list role without list items, and a role that ARIA dropped.
  document.querySelectorAll(".citation-list[role], .citation[role]").forEach((entry) => {
    entry.removeAttribute("role");
  });
}
document.addEventListener("DOMContentLoaded", mend);
window.addEventListener("load", mend);
