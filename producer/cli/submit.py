"""The commands that make a job: classify, train, evaluate, generate, synthesize and verify.

Their options are the fields of the models in `contract.jobs.options`; only the text around them is here.
"""

from __future__ import annotations

from contract.jobs.options import (
    ClassifyOptions,
    EvaluateOptions,
    GenerateOptions,
    SynthesizeOptions,
    TrainOptions,
    VerifyOptions,
)
from producer.cli.options import job_command

classify = job_command(
    ClassifyOptions,
    """Label every image of SOURCE.

    SOURCE is a local folder, an S3 prefix, a manifest (.jsonl, .csv or .parquet with a column `uri` or `source-ref`),
    or WebDataset tars. Local images are packed and uploaded first. A model of sequences labels each folder of frames,
    each animation, or each manifest row with `frames`. Ctrl-C leaves the job running.

    \b
    Examples:
      imagemill classify photos --model efficientnet-lite0
      imagemill classify s3://camera/2026/ --model efficientnet-lite0 --max-errors 1%
      imagemill classify urls.jsonl --model efficientnet-lite0 --job urls-1 --detach
    """,
)

train = job_command(
    TrainOptions,
    """Train a model of FAMILY: cnn, rnn, gan or vae.

    SOURCE is a folder with one folder per class, WebDataset tars, an S3 prefix, a manifest with a column `label`, a
    folder with IDX files (the MNIST format), job:ID, the labels of an earlier classify job, review:ID, those that
    people gave its images in a review, watch:NAME, the labels of a watch, with @newest those of its newest segment, or
    dataset:NAME[@VERSION], a dataset of the bucket, by default at the version that is newest now. An rnn takes
    sequences: CLASS/SEQUENCE/frame-1.png, animations, or a manifest with `frames` and `label`. Training checkpoints,
    so it survives the loss of a worker. Ctrl-C leaves it running. The best epoch is published.

    Several sources in the store are read one behind the other, as one.

    \b
    Examples:
      imagemill train cnn --data flowers/ --name flowers --epochs 20 --set size=64
      imagemill train gan --data s3://sets/mnist/ --name digits-gan
      imagemill train cnn --data job:animals --min-score 0.9 --name animals --set size=96
      imagemill train cnn --data review:animals --name animals --set size=96
      imagemill train cnn --data watch:camera --data dataset:garments --name garments
    """,
)

evaluate = job_command(
    EvaluateOptions,
    """Evaluate MODEL on labelled images, as it is served. Class names must match the model's.

    A classifier gets accuracy, figures for each class, and calibration. With a folder of IDX files the test part is
    used.

    A generator needs --features, and gets Fréchet and kernel distance, precision, recall, density, coverage, and copies
    of training images; with --cas-epochs, also the accuracy of a classifier trained on its images alone. Pass the data
    that it was trained on: it is compared with the test part, or with what its training held out.

    \b
    Examples:
      imagemill evaluate flowers --data flowers-test/ --job flowers-test
      imagemill report flowers-test -o flowers.html
      imagemill evaluate flowers --data review:nightly-photos
      imagemill evaluate fashion-gan --data fashion/ --features fashion-cnn --cas-epochs 10
    """,
)

generate = job_command(
    GenerateOptions,
    """Generate images without a quality gate.

    Image I of a class is the same in every job with the same model, seed and options, so a larger --count contains a
    smaller one. To keep only images that a classifier accepts, use `imagemill synthesize`.

    \b
    Examples:
      imagemill generate --model fashion-gan --count 10000
      imagemill generate --model fashion-gan --count 64 --class Sneaker --truncation 0.8 --size 112
      imagemill generate --model fashion-vae --reconstruct fashion/ --count 256
      imagemill generate --model fashion-vae --interpolate a.png b.png --steps 10 --class Sneaker
      imagemill export JOB --format imagefolder -o sneakers
    """,
)

synthesize = job_command(
    SynthesizeOptions,
    """Generate a dataset: --per-class images of each class, each of which passed every check.

    Candidates are generated until enough pass. A candidate passes if the gate assigns it its intended class with at
    least --min-score, and if it is neither a near-duplicate nor a copy; both are cosine distances between features of
    the gate. The result does not depend on the number of workers. The exit code is 1 if a class falls short after
    --max-attempts.

    With --extend the images become the next version of a named dataset of the bucket, if every class has its
    --per-class: other images than it holds, with another --seed each time. In a schedule it grows at each tick.

    \b
    Examples:
      imagemill synthesize --model fashion-gan --gate fashion-cnn --per-class 1000 --dedup 0.0005
      imagemill synthesize --model fashion-gan --gate fashion-cnn --per-class 100 --extend garments --seed 1
      imagemill synthesize --model fashion-gan --gate fashion-cnn --per-class 1000 --away-from fashion/
      imagemill report JOB -o synthesis.html
    """,
)

verify = job_command(
    VerifyOptions,
    """Generate images of JOB again from its records, and compare them with its files.

    JOB may also be dataset:NAME[@VERSION]; the sample is then spread over all its versions. The exit code is 1 if a
    pixel differs by more than 1 of 255.

    \b
    Example:
      imagemill verify generate-20261124-093215-7f3a09c4 --sample 256
      imagemill verify dataset:garments
    """,
)
