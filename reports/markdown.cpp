// The document as GitHub-flavoured markdown.
#include "reports/document.h"

#include <algorithm>

namespace dsa::report {
namespace {

class MarkdownWriter {
 public:
  MarkdownWriter(const Document& document, bool with_pictures)
      : document_(document), with_pictures_(with_pictures) {}

  void operator()(const Heading& heading) {
    out_ += std::string(static_cast<size_t>(heading.level), '#') + " " +
            markdown(Text(heading.text)) + "\n\n";
  }
  void operator()(const Paragraph& paragraph) { out_ += markdown(paragraph.text) + "\n\n"; }
  void operator()(const Verdict& verdict) {
    for (const Text& sentence : verdict.sentences) out_ += markdown(sentence) + "\n\n";
  }
  void operator()(const Alert& alert) {
    out_ += "> [!WARNING]\n> " + markdown(alert.text) + "\n\n";
  }
  void operator()(const List& list) {
    for (const Text& item : list.items) out_ += "* " + markdown(item) + "\n";
    out_ += "\n";
  }
  void operator()(const CodeBlock& block) {
    // A fence longer than any run of backticks inside cannot be closed by the text.
    std::string fence = "```";
    while (block.text.find(fence) != std::string::npos) fence += '`';
    out_ += fence + "\n" + block.text + "\n" + fence + "\n\n";
  }
  void operator()(const Table& table) {
    std::string rule = "|";
    out_ += "|";
    for (const Table::Column& column : table.columns) {
      cell(column.head);
      rule += column.numeric ? " ---: |" : " --- |";
    }
    out_ += "\n" + rule + "\n";
    const size_t most = document_.table_rows > 0 ? document_.table_rows : table.rows.size();
    for (size_t i = 0; i < std::min(most, table.rows.size()); ++i) {
      out_ += "|";
      for (const Text& text : table.rows[i]) cell(text);
      out_ += "\n";
    }
    out_ += "\n";
    if (table.rows.size() > most) {
      (*this)(Paragraph{Text("And " + std::to_string(table.rows.size() - most) + " more: ") +
                        code(document_.stem + ".html") + " has them all."});
    }
  }
  void operator()(const Figure& figure) {
    if (document_.comment) return;
    const Chart& chart = figure.chart;
    const std::string title = markdown(Text(chart.title));
    if (with_pictures_) {
      out_.append("![").append(title).append("](charts/").append(chart.id).append(".svg)\n\n");
    } else {
      const std::string file = "charts/" + chart.id + ".vl.json";
      out_.append("*").append(title).append("*: [").append(file).append("](").append(file);
      out_.append(")\n\n");
    }
    out_ += markdown(chart.caption) + "\n\n";
  }
  void operator()(const Details& details) {
    out_ += "<details>\n<summary>" + html(details.summary) + "</summary>\n\n";
    for (const Block& block : details.blocks) std::visit(*this, block.content);
    out_ += "</details>\n\n";
  }
  std::string take() { return std::move(out_); }
  void add(const std::string& text) { out_ += text; }

 private:
  // Appended piece by piece: GCC 12 warns falsely (-Wrestrict) about "literal" + temporary.
  void cell(const Text& text) { out_.append(" ").append(markdown(text)).append(" |"); }

  const Document& document_;
  bool with_pictures_;
  std::string out_;
};

}  // namespace

std::string markdown(const Document& document, bool with_pictures) {
  MarkdownWriter writer(document, with_pictures);
  if (!document.comment) {
    writer(Heading{1, document.title});
    if (!with_pictures) {
      writer(Paragraph{picture_advice()});
    } else {
      const std::string page = document.stem + ".html";
      writer.add("The same with charts to hover over: [" + page + "](" + page + ").\n\n");
    }
  }
  for (const Block& block : document.blocks) std::visit(writer, block.content);
  std::string out = writer.take();
  out.pop_back();
  return out;
}

}  // namespace dsa::report
