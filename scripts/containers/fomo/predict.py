#!/usr/bin/env python
"""One case of FOMO25 or FOMO26: the images in, a probability, an age, a mask or an embedding out.

    python predict.py --flair F --adc A --dwi_b1000 D --t2s T --output sub.txt     FOMO25, task 1: probability
    python predict.py --flair F --dwi_b1000 D --swi S --output sub.nii.gz          FOMO25, task 2: mask
    python predict.py --t1 T1 --t2 T2 --output sub.txt                             FOMO25, task 3: age
    python predict.py --flair F --dwi D --adc A --t2s T --output sub.txt           FOMO26, tasks 1 and 2 (.nii.gz)
    python predict.py --t1 T1 --output sub.txt [--task fomo26-polymicrogyria]      FOMO26, tasks 3 and 5
    python predict.py --t2 T2 --output sub.nii.gz                                  FOMO26, task 4: labels 0-2
    python predict.py --input X --output sub.npy                                   FOMO26, tasks 6 and 7: embedding

The weights are a module, or a folder of modules named like their tasks (fomo25-infarct ...): $UKB_INFER_FOMO_WEIGHTS,
the folder `weights` beside this script, or those shipped with the package. No network is used. A case that cannot be
used ends with an exit code other than 0 and leaves no output.
"""

import sys
from pathlib import Path

from ukb_infer.tasks.fomo import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parent))
