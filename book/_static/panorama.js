// Mends what the theme and docutils tell assistive technology (found by axe, WCAG 2 A and AA),
// and marks outputs that are tables.
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
  // On a phone, text in an output wraps; a table keeps its columns and scrolls. Where it may, it takes
  // the keyboard's focus; the theme has looked before the class was there, and looks again on resize.
  document.querySelectorAll(".cell_output pre").forEach((output) => {
    const rows = output.textContent.split("\n").filter((line) => / {2,}\S/.test(line.trim()));
    output.classList.toggle("columns", rows.length > 2);
    const hidden = !output.clientWidth; // in a tab that is not shown
    if (rows.length > 2 && (hidden || output.scrollWidth > output.clientWidth)) output.tabIndex = 0;
  });
}
document.addEventListener("DOMContentLoaded", mend);
window.addEventListener("load", mend);
