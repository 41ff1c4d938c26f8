# %% [markdown]
# # ukb_infer from Python
# Uses synthetic scans and the demonstration module, which knows nothing about people.

# %%
import tempfile
from pathlib import Path

import pandas as pd

import ukb_infer
from ukb_infer.phantom import write_cohort

work = Path(tempfile.mkdtemp(prefix="ukb-infer-example-"))
truth = pd.read_csv(write_cohort(work / "scans", count=3, seed=5, size="small"), dtype={"eid": str})

# %% [markdown]
# ## One scan: fuse and project

# %%
projection = ukb_infer.project(work / "scans" / "0000001_20201_2_0.zip")
print(projection.image.shape, projection.image.dtype, "flags:", [flag.value for flag in projection.flags])

# %% [markdown]
# ## Many scans: estimates with 90 % intervals

# %%
frame = ukb_infer.predict(work / "scans", out=work / "run", modules=["phantom-demo"], level=0.9, device="cpu")
print(frame[["weight_mean", "weight_ci90_lower", "weight_ci90_upper"]].round(1))

# %% [markdown]
# ## Read the run's folder as a long table and compare with the true values

# %%
tidy = ukb_infer.read_estimates(work / "run", long=True)
known = truth.melt(id_vars=["scan"], value_vars=list(tidy["target"].unique()), var_name="target", value_name="truth")
joined = tidy.merge(known, on=["scan", "target"])
covered = ((joined["truth"] >= joined["lower"]) & (joined["truth"] <= joined["upper"])).mean()
print(f"{100 * covered:.0f} % of {len(joined)} intervals cover the truth (90 % expected over many scans)")

# %% [markdown]
# ## Columns named after UK Biobank's fields

# %%
print(ukb_infer.read_estimates(work / "run", columns="field")[["est_p21002_i2", "est_age_i2"]].round(1))
