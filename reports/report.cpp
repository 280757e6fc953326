#include "reports/report.h"

#include "reports/verdict.h"
#include "reports/vocabulary.h"

namespace dsa::report {
namespace {

namespace words = vocabulary;

void append(std::vector<Block>& blocks, std::vector<Block> more) {
  for (Block& block : more) blocks.push_back(std::move(block));
}

Table training_evidence_table(const TrainingView& training) {
  Table table;
  table.columns = {{"L", true},     {"variant"},     {"K", true}, {"loss gap (nats/token)", true},
                   {"speed", true}, {"seeds", true}, {"reading"}};
  for (const TrainingEvidence& e : training_evidence(training)) {
    const std::string n = e.gap.n == e.speed.n
                              ? std::to_string(e.gap.n)
                              : std::to_string(e.gap.n) + "/" + std::to_string(e.speed.n);
    table.rows.push_back(
        {length(e.length), code(e.arm->name), e.top_k.empty() ? "all" : e.top_k, signed_gap(e.gap),
         times(e.speed), n,
         e.arm->variant.role == words::kFlawed ? Text("flawed, no verdict") : reading(e)});
  }
  return table;
}

Table kernel_evidence_table(const KernelView& kernels) {
  Table table;
  table.columns = {{"pass"},
                   {"L", true},
                   {"K", true},
                   {"fastest dense"},
                   {"fastest whole DSA"},
                   {"speed-up", true},
                   {"FLOP ratio", true},
                   {"reading"}};
  for (const Scenario& scenario : kernels.scenarios()) {
    for (const ScenarioPoint& point : scenario.points) {
      const Contender *dense = point.best_dense(), *sparse = point.best_sparse();
      if (!dense || !sparse) continue;
      table.rows.push_back({scenario.pass, length(point.length), count(point.top_k),
                            code(dense->backend) + " " + with_unit(dense->time, "s"),
                            code(sparse->backend) + " " + with_unit(sparse->time, "s"),
                            times(point.speed_up()), times(sparse->flop_ratio),
                            reading(point.speed_up())});
    }
  }
  return table;
}

}  // namespace

std::vector<Block> verdict_section(const Material& material) {
  std::vector<Block> out;
  out.push_back({Verdict{verdict_sentence(material.training, material.kernels)}});
  for (const Text& warning : warnings(material.run, material.training))
    out.push_back({Alert{warning}});
  const Table training = training_evidence_table(material.training);
  if (!training.rows.empty()) {
    const Arm* baseline = material.training.first(words::kBaseline);
    out.push_back({Heading{3, "The evidence: training"}});
    out.push_back({training});
    out.push_back({Paragraph{
        Text("Against ") + code(baseline->name) +
        ". Loss gap: best validation loss minus the baseline's, same "
        "seed; below 0 is better. Speed: the baseline's step time over the variant's; above 1× is "
        "faster. "
        "[low, high]: 95 % sign-test interval of the median from 6 seeds on, else the smallest and "
        "largest seed. A gap within ±" +
        shortest(kLossMargin) + " nats/token or a speed within ±" + shortest(100 * kSpeedMargin) +
        " %" + " counts as the same; \"open\" means the interval does not decide."}});
  }
  const Table kernels = kernel_evidence_table(material.kernels);
  if (!kernels.rows.empty()) {
    out.push_back({Heading{3, "The evidence: kernels"}});
    out.push_back({kernels});
    out.push_back(
        {Paragraph{"Whole DSA is selecting the keys (indexer and top-k) plus sparse attention over "
                   "them, on one backend; "
                   "the fastest of ours stands against the fastest dense row of any backend but "
                   "the oracle. The "
                   "speed-up's bounds take both sides' intervals at their worst. FLOP ratio: dense "
                   "over DSA, no bound on "
                   "time."}});
  }
  return out;
}

Document build(const LoadedRun& loaded) {
  const Material material(loaded.run);
  Document out;
  out.id = loaded.run.id;
  out.title = "Sparse against dense attention: run " + loaded.run.id;
  append(out.blocks, verdict_section(material));
  append(out.blocks, audit_section(loaded.run));
  append(out.blocks, anatomy_section(material));
  append(out.blocks, training_section(material));
  append(out.blocks, kernel_section(material));
  append(out.blocks, goal_section(loaded.run));
  append(out.blocks, failure_section(loaded.failures));
  append(out.blocks, environment_section(loaded.run));
  append(out.blocks, reproduce_section(loaded));
  append(out.blocks, threats_section(loaded, material));
  return out;
}

std::vector<Chart> figures(const Document& document) {
  std::vector<Chart> out;
  for (const Block& block : document.blocks) {
    if (const auto* figure = std::get_if<Figure>(&block.content)) out.push_back(figure->chart);
  }
  return out;
}

Text picture_advice() {
  return Text("The pictures need vl-convert: ") + code("pip install vl-convert-python") +
         " in the Python that dsa-report uses (" + code("--python PATH") + "), then call " +
         code("dsa-report make") + " again. Until then the files " + code("charts/*.vl.json") +
         " hold every chart with its data.";
}

}  // namespace dsa::report
