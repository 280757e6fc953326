// The document as one self-contained page: style, charts and the scripts that draw them are all
// inside, and a content policy forbids the browser to ask for anything else.
#include "reports/document.h"

namespace dsa::report {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #F3F4F6; color: #1F2937; line-height: 1.55;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif; }
main { max-width: 984px; margin: 24px auto 64px; padding: 32px 32px 48px; background: #FFF;
       border: 1px solid #E5E7EB; border-radius: 10px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 20px; color: #111827; }
h2 { font-size: 21px; margin: 48px 0 14px; padding-bottom: 6px; border-bottom: 1px solid #E5E7EB; color: #111827; }
h3 { font-size: 16px; margin: 28px 0 8px; color: #111827; }
p, li { max-width: 78ch; }
.verdict { margin: 0 0 20px; padding: 18px 22px; border-left: 5px solid #E4572E; border-radius: 6px;
           background: #FEF6F3; font-size: 17px; line-height: 1.5; }
.verdict p { margin: 0 0 10px; max-width: none; }
.verdict p:last-child { margin: 0; }
.warning { margin: 12px 0; padding: 10px 16px; border-left: 5px solid #F2A541; border-radius: 6px;
           background: #FFF9EC; max-width: none; font-size: 15px; }
.scroll { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; font-size: 13.5px; line-height: 1.4; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 9px; border-bottom: 1px solid #E5E7EB; text-align: left; vertical-align: top; }
th { color: #374151; font-weight: 600; border-bottom: 2px solid #9CA3AF; vertical-align: bottom; }
.number { text-align: right; }
td.number { white-space: nowrap; }
tbody tr:hover { background: #F9FAFB; }
code { font: 0.92em ui-monospace, "SF Mono", "Liberation Mono", Menlo, monospace; background: #F3F4F6;
       padding: 1px 5px; border-radius: 4px; overflow-wrap: anywhere; }
td code, th code { overflow-wrap: normal; }
pre { background: #F9FAFB; border: 1px solid #E5E7EB; border-radius: 6px; padding: 12px 16px; overflow-x: auto;
      font-size: 13px; line-height: 1.45; white-space: pre-wrap; overflow-wrap: anywhere; }
pre code { background: none; padding: 0; }
figure { margin: 28px 0; }
figure .chart { overflow-x: auto; min-height: 40px; }
figcaption { color: #4B5563; font-size: 14px; max-width: 78ch; margin-top: 4px; }
.chart-error { color: #B42318; }
details { margin: 10px 0; }
summary { cursor: pointer; color: #374151; }
@media print { body { background: #FFF; } main { border: 0; margin: 0; } }
)";

// Counts what was drawn in <body data-drawn>, which the browser test reads.
constexpr const char* kDraw = R"(
(function () {
  var charts = document.querySelectorAll('.chart[data-chart]');
  var drawn = 0, failed = 0;
  function report() {
    document.body.setAttribute('data-drawn', drawn);
    document.body.setAttribute('data-failed', failed);
  }
  report();
  charts.forEach(function (place) {
    var spec = JSON.parse(document.getElementById('spec-' + place.dataset.chart).textContent);
    function fail(error) {
      failed += 1;
      place.innerHTML = '';
      var note = document.createElement('p');
      note.className = 'chart-error';
      note.textContent = 'This chart could not be drawn: ' + error;
      place.appendChild(note);
      report();
    }
    try {
      vegaEmbed(place, spec, { actions: false, renderer: 'svg', tooltip: true }).then(function () {
        drawn += 1;
        report();
      }, fail);
    } catch (error) { fail(error); }
  });
})();
)";

/// JSON inside <script>: "</script>" in a label would end it, and so would "<!--".
std::string script_safe(const std::string& text) {
  std::string out;
  for (char c : text) out += c == '<' ? "\\u003c" : std::string(1, c);
  return out;
}

/// The same for JavaScript source, where only string literals can hold these two.
std::string closes_no_script(std::string text) {
  for (const char* word : {"</script", "<!--"}) {
    for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at)) {
      text.insert(at + 1, 1, '\\');
    }
  }
  return text;
}

class HtmlWriter {
 public:
  explicit HtmlWriter(bool draws) : draws_(draws) {}

  void operator()(const Heading& heading) {
    const char* tag = heading.level == 2 ? "h2>" : "h3>";
    out_.append("<").append(tag).append(html_escaped(heading.text)).append("</").append(tag) +=
        '\n';
  }
  void operator()(const Paragraph& paragraph) { out_ += "<p>" + html(paragraph.text) + "</p>\n"; }
  void operator()(const Verdict& verdict) {
    out_ += "<div class=\"verdict\">\n";
    for (const Text& sentence : verdict.sentences) out_ += "<p>" + html(sentence) + "</p>\n";
    out_ += "</div>\n";
  }
  void operator()(const Alert& alert) {
    out_ += "<p class=\"warning\">" + html(alert.text) + "</p>\n";
  }
  void operator()(const List& list) {
    out_ += "<ul>\n";
    for (const Text& item : list.items) out_ += "<li>" + html(item) + "</li>\n";
    out_ += "</ul>\n";
  }
  void operator()(const CodeBlock& block) {
    out_ += "<pre><code>" + html_escaped(block.text) + "</code></pre>\n";
  }
  void operator()(const Table& table) {
    out_ += "<div class=\"scroll\"><table>\n<thead><tr>";
    for (const Table::Column& column : table.columns) cell("th", column.head, column.numeric);
    out_ += "</tr></thead>\n<tbody>\n";
    for (const auto& row : table.rows) {
      out_ += "<tr>";
      for (size_t i = 0; i < row.size(); ++i) cell("td", row[i], table.columns[i].numeric);
      out_ += "</tr>\n";
    }
    out_ += "</tbody></table></div>\n";
  }
  void operator()(const Figure& figure) {
    const Chart& chart = figure.chart;
    const std::string id = html_escaped(chart.id);
    out_ += "<figure>\n";
    if (draws_) {
      out_ += "<div class=\"chart\" id=\"chart-" + id + "\" data-chart=\"" + id +
              "\" role=\"img\" aria-label=\"" + html_escaped(chart.title) +
              "\"></div>\n<script type=\"application/json\" id=\"spec-" + id + "\">" +
              script_safe(chart.spec.dump()) + "</script>\n";
    } else {
      out_ += "<p><strong>" + html_escaped(chart.title) + "</strong>: <code>charts/" + id +
              ".vl.json</code></p>\n";
    }
    out_ += "<figcaption>" + html(chart.caption) + "</figcaption>\n</figure>\n";
  }
  void operator()(const Details& details) {
    out_ += "<details>\n<summary>" + html(details.summary) + "</summary>\n";
    for (const Block& block : details.blocks) std::visit(*this, block.content);
    out_ += "</details>\n";
  }
  const std::string& text() const { return out_; }

 private:
  void cell(const std::string& tag, const Text& text, bool numeric) {
    out_ += "<" + tag + (numeric ? " class=\"number\">" : ">") + html(text) + "</" + tag + ">";
  }

  bool draws_;
  std::string out_;
};

}  // namespace

std::string html(const Document& document, const std::string& script) {
  const bool draws = !script.empty();
  HtmlWriter writer(draws);
  if (!draws && !figures(document).empty()) writer(Alert{picture_advice()});
  for (const Block& block : document.blocks) std::visit(writer, block.content);
  // Vega compiles its expressions with Function(): hence 'unsafe-eval'. Nothing may be fetched.
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; "
      "script-src 'unsafe-inline' 'unsafe-eval'; img-src data:\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
      html_escaped(document.title) + "</title>\n<style>" + kStyle +
      "</style>\n</head>\n<body>\n<main>\n<h1>" + html_escaped(document.title) + "</h1>\n" +
      writer.text() + "</main>\n";
  if (draws) {
    out.append("<script>").append(closes_no_script(script)).append("</script>\n<script>");
    out.append(kDraw).append("</script>\n");
  }
  return out + "</body>\n</html>\n";
}

}  // namespace dsa::report
