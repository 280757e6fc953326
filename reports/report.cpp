#include "reports/report.h"

#include "reports/verdict.h"
#include "reports/vocabulary.h"

namespace dsa::report {
namespace {

namespace words = vocabulary;

void append(std::vector<Block>& blocks, std::vector<Block> more) {
  for (Block& block : more) blocks.push_back(std::move(block));
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
  const bool only_tasks =
      material.training.empty() && material.kernels.empty() && !material.tasks.empty();
  out.push_back(
      {only_tasks ? Verdict{{task_sentence(material.tasks)}}
                  : Verdict{verdict_sentences(material.run, material.training, material.kernels)}});
  for (const Text& warning : warnings(material.run, material.training))
    out.push_back({Alert{warning}});
  return out;
}

std::vector<Block> evidence_section(const Material& material) {
  std::vector<Block> out = comparison_section(material);
  const Table kernels = kernel_evidence_table(material.kernels);
  if (!kernels.rows.empty()) {
    out.push_back({Heading{2, "The evidence: kernels"}});
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
  append(out.blocks, evidence_section(material));
  append(out.blocks, anatomy_section(material));
  append(out.blocks, training_section(material));
  append(out.blocks, task_section(material));
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
         " in the Python that dsa-report uses (" + code("--python PATH") +
         "), then call dsa-report again. Until then the files " + code("charts/*.vl.json") +
         " hold every chart with its data.";
}

}  // namespace dsa::report
