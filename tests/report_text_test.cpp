// Numbers for people, and text that neither markdown nor HTML mistakes for markup.
#include "reports/document.h"
#include "reports/text.h"

#include <catch2/catch_test_macros.hpp>

#include <cmath>

using namespace dsa::report;

/// Expected text: units hang on their number by a space that does not break.
static std::string hung(std::string text) {
  for (size_t at = 0; (at = text.find(' ', at)) != std::string::npos; at += 2) {
    text.replace(at, 1, "\u00a0");
  }
  return text;
}

TEST_CASE("numbers carry at most four digits and a unit that fits", "[report]") {
  CHECK(with_unit(0.0012341, "s") == hung("1.234 ms"));
  CHECK(with_unit(123.0, "s") == hung("123 s"));
  CHECK(with_unit(3.2e-8, "s") == hung("32.00 ns"));
  CHECK(with_unit(64.0 * 1024 * 1024, "bytes") == hung("64.00 MiB"));
  CHECK(with_unit(13512.0, "tokens/s") == hung("13512 tokens/s"));
  CHECK(with_unit(3.32e11, "FLOP/s") == hung("332.0 GFLOP/s"));
  CHECK(with_unit(2.5e10, "bytes/s") == hung("25.00 GB/s"));
  CHECK(significant(9.9996) == "10.00");
  CHECK(significant(0) == "0");
}

TEST_CASE("what is not finite, tiny or huge is still printed in a few letters", "[report]") {
  CHECK(with_unit(NAN, "s") == hung("–"));
  CHECK(with_unit(INFINITY, "bytes") == hung("–"));
  for (double value : {1e308, -1e308, 5e-324, 1e15, 1e-12}) {
    for (const char* unit : {"s", "bytes", "1", "FLOP/s", "tokens/s", "nats/token"}) {
      CAPTURE(value, unit);
      CHECK(with_unit(value, unit).size() < 32);
      CHECK(with_unit(summarise({value, value / 2, value / 3}), unit).size() < 64);
    }
  }
}

TEST_CASE("a value and its half-width end at the same decimal", "[report]") {
  CHECK(with_half_width(2.6131, 0.0031) == hung("2.613 ± 0.003"));
  CHECK(with_half_width(7.2704, 0.163) == hung("7.27 ± 0.16"));
  CHECK(with_half_width(1234.5, 20.0) == hung("1234 ± 20"));
  CHECK(with_half_width(1.42694, 0.0009) == hung("1.427 ± 0.001"));
  CHECK(with_half_width(2.5889, 0.0001) == hung("2.589 ± <0.001"));
  CHECK(with_unit(summarise({0.0100, 0.0104, 0.0108}), "s") == hung("10.4 ± 0.4 ms"));
  CHECK(with_unit(summarise({0.0100}), "s") == hung("10.00 ms"));
}

TEST_CASE("lengths read in powers of two", "[report]") {
  CHECK(length(512) == "512");
  CHECK(length(8192) == "8k");
  CHECK(length(1702) == "1.7k");
  CHECK(length(2048.01) == "2k");
  CHECK(length(16384) == "16k");
}

TEST_CASE("markdown escapes bars, stars and angle brackets, also in code inside tables",
          "[report]") {
  CHECK(markdown(Text("a|b *c* <d> `e`")) == "a\\|b \\*c\\* &lt;d&gt; \\`e\\`");
  CHECK(markdown(code("a|b")) == "`a\\|b`");
  CHECK(markdown(code("a`b")) == "`` a`b ``");
  CHECK(markdown(Text("snake_case and _x_")) == "snake_case and \\_x\\_");
  CHECK(markdown(Text("[0.9, 1.1]")) == "[0.9, 1.1]");
  CHECK(markdown(Text("[text](address)")) == "[text\\](address)");
  CHECK(markdown(Text("two\nlines")) == "two lines");
}

TEST_CASE("bold text stays bold beside code and blanks", "[report]") {
  CHECK(markdown(bold(Text("see ") + code("x") + " now")) == "**see** `x` **now**");
  CHECK(markdown(bold(std::string("a")) + bold(std::string("b"))) == "**ab**");
}

TEST_CASE("HTML escapes markup in text, attributes and chart data", "[report]") {
  CHECK(html(Text("<b>&\"")) == "&lt;b&gt;&amp;&quot;");
  Document document;
  document.title = "a</title><script>";
  Chart chart{"c", "t\"><script>", "caption", {{"k", "</script><script>alert(1)</script>"}}};
  document.blocks = {{Figure{chart}}};
  const std::string page = html(document, "var a = '</script>';");
  CHECK(page.find("</script><script>alert") == std::string::npos);
  CHECK(page.find("<title>a&lt;/title&gt;") != std::string::npos);
  CHECK(page.find("t\"><script>") == std::string::npos);
  CHECK(page.find("var a = '<\\/script>';") != std::string::npos);
}

TEST_CASE("a code block that holds a fence gets a longer one", "[report]") {
  Document document;
  document.blocks = {{CodeBlock{"```\nx\n```"}}};
  CHECK(markdown(document, true).find("````\n```\nx\n```\n````") != std::string::npos);
}
