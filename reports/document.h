// A report as a list of blocks, built once; markdown.cpp and html.cpp each write all of them.
#pragma once
#include "reports/text.h"
#include "reports/theme.h"

#include <string>
#include <variant>
#include <vector>

namespace dsa::report {

struct Heading {
  int level = 2;
  std::string text;
};
struct Paragraph {
  Text text;
};
struct Verdict {
  std::vector<Text> sentences;
};
struct Alert {
  Text text;
};
struct List {
  std::vector<Text> items;
};
struct CodeBlock {
  std::string text;
};
struct Table {
  struct Column {
    Text head;
    bool numeric = false;
  };
  std::vector<Column> columns;
  std::vector<std::vector<Text>> rows;
};
struct Figure {
  Chart chart;
};
struct Block;
struct Details {
  Text summary;
  std::vector<Block> blocks;
};
struct Block {
  std::variant<Heading, Paragraph, Verdict, Alert, List, CodeBlock, Table, Figure, Details> content;
};

struct Document {
  std::string title, id;
  std::vector<Block> blocks;
  std::string stem = "report";  ///< of the files it is written to
  /// The markdown is posted as a comment, far from the files beside it: no title, no figures, no links.
  bool comment = false;
  size_t table_rows = 0;  ///< of a table in markdown, then a count of the rest; 0 = all
};

/// Figures in reading order.
std::vector<Chart> figures(const Document& document);

/// @param with_pictures charts/<id>.svg exist beside the file; else the text says how to get them.
std::string markdown(const Document& document, bool with_pictures);

/// One self-contained page.
/// @param script Vega, Vega-Lite and Vega-Embed in one script, or empty: then the page says how to
/// get the pictures.
std::string html(const Document& document, const std::string& script);

/// How to get the pictures, when they are missing.
Text picture_advice();

}  // namespace dsa::report
