"""What people's notebooks of log analysis do with a run folder, through deepracer-utils as it is; prints JSON.

Run as a program of its own: python deepracer_notebook.py RUN PICTURES
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from deepracer.logs import AnalysisUtils, DeepRacerLog, PlottingUtils, TrainingMetrics
from deepracer.tracks import TrackIO

run, pictures = Path(sys.argv[1]), Path(sys.argv[2])


def show(*_: object) -> None:
    """As a notebook does at the end of a cell."""
    for number in plt.get_fignums():
        figure = plt.figure(number)
        if figure.axes:
            figure.savefig(pictures / f"{len(list(pictures.iterdir())):02d}.png", dpi=30)
    plt.close("all")


plt.show = show
result: dict[str, object] = {}

log = DeepRacerLog(model_folder=str(run))
log.load()
df = log.dataframe()
result["type"] = log.fh.type.name
result["columns"] = list(df.columns)
result["prepare"] = int((df["episode_status"] == "prepare").sum())
result["steps"] = int((df["episode_status"] != "prepare").sum())
result["unique_episodes"] = int(df["unique_episode"].nunique())
result["episodes_match"] = bool((df["unique_episode"] == df["episode"]).all())
result["iterations"] = df.groupby("iteration")["episode"].nunique().tolist()
result["steps_in_row"] = bool((df.groupby("unique_episode")["steps"].diff().dropna() == 1).all())
result["first_step"] = df.groupby("unique_episode")["steps"].min().unique().tolist()
result["period_s"] = sorted({round(v, 3) for v in df.groupby("unique_episode")["tstamp"].diff().dropna()})
result["actions"] = sorted(df["action"].unique().tolist())
result["statuses"] = sorted(df["episode_status"].unique().tolist())
result["done_rows"] = int(df["done"].sum())
result["hyperparameters"] = log.hyperparameters()
result["action_space"] = log.action_space()
result["agent"] = log.agent_and_network()
result["stability_rows"] = len(log.stability.analyze())
agg = AnalysisUtils.simulation_agg(df, secondgroup="unique_episode")
result["agg"] = agg[["steps", "reward", "progress", "time", "dist"]].to_dict("list")
result["rewards"] = df.groupby("unique_episode")["reward"].sum().tolist()
AnalysisUtils.scatter_aggregates(agg, "all")
AnalysisUtils.scatter_by_groups(agg, title="quintiles")
AnalysisUtils.analyze_training_progress(agg, title="progress", groupby_field="unique_episode")
track = TrackIO(str(run / "inputs")).load_track(sys.argv[3])
PlottingUtils.plot_track(df, track)
show()
PlottingUtils.plot_selected_laps(agg.nlargest(2, "progress"), df, track, section_to_plot="unique_episode")
show()

evaluation = DeepRacerLog(model_folder=str(run))
evaluation.load_evaluation_trace()
ef = evaluation.dataframe()
eg = AnalysisUtils.simulation_agg(ef, firstgroup="stream", is_eval=True)
result["streams"] = ef["stream"].unique().tolist()
result["eval_trials"] = len(eg)
result["eval_time_s"] = eg["time"].tolist()
result["eval_off_track"] = int(eg["off_track"].sum())
AnalysisUtils.scatter_aggregates(eg, "evaluation", is_eval=True)
PlottingUtils.plot_evaluations(ef, track)
show()

metrics = TrainingMetrics(None, fname=str(run / "metrics" / "TrainingMetrics.json"))
summary = metrics.getSummary()
result["summary"] = summary.reset_index().to_dict("list")
result["metric_rewards"] = metrics.getTraining()["reward"].tolist()
result["metric_evaluations"] = len(metrics.getEvaluation())
metrics.plotProgress()
show()
result["pictures"] = [path.stat().st_size for path in sorted(pictures.iterdir())]
print("RESULT " + json.dumps(result, default=str))
