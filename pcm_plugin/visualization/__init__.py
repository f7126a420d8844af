from pcm_plugin.visualization.sheet import SheetEntry, contact_sheet, mixed_patches, save_sheet

__all__ = ["SheetEntry", "contact_sheet", "mixed_patches", "save_sheet"]
