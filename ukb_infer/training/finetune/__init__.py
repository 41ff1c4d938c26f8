"""Few-shot finetuning: labelled cases and a pretrained encoder to a module."""
