"""Socket types: our own, and those of core and other packs that we use."""

from .host import io

SubjectType = io.Custom("LIKENESS_SUBJECT")
PriorType = io.Custom("LIKENESS_PRIOR")
OptionsType = io.Custom("LIKENESS_OPTIONS")
LoraModelType = io.Custom("LORA_MODEL")  # core's: a dict of the UNet's LoRA tensors
LossMapType = io.Custom("LOSS_MAP")  # core's: {"loss": [float, …]}
PromptsType = io.Custom("LIKENESS_PROMPTS")
PosesType = io.Custom("LIKENESS_POSES")
MatrixType = io.Custom("LIKENESS_MATRIX")
JobType = io.Custom("LIKENESS_JOB")
StudyType = io.Custom("LIKENESS_STUDY")
KeypointsType = io.Custom("POSE_KEYPOINT")  # of controlnet_aux and core: a dict per frame
